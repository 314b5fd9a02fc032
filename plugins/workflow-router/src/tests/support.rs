//! A host with the plugin's own manifest, and a loop that brings the plugin its own events.

use cofferdam_sdk::{
    rpc::Status,
    testing::{Host, Published, Run, event},
};
use fleet_proto::task_derivation::v1::{ListStoryTasksRequest, ListStoryTasksResponse, TaskSummary};
use serde_json::Value;

pub(super) const CREATED: &str = "planning.task.created";
pub(super) const TRANSITIONED: &str = "planning.story.transitioned";
pub(super) const DERIVED: &str = "task.derivation.completed";
pub(super) const CHANGED: &str = "workflow.state.changed";
pub(super) const ASSIGNED: &str = "workflow.task.assigned";
pub(super) const OPEN: &str = "cofferdam.workflow.open";
pub(super) const OPENED: &str = "cofferdam.workflow.opened";
pub(super) const MOVED: &str = "cofferdam.workflow.moved";
pub(super) const WORK: &str = "agent.work.completed";
pub(super) const VALIDATION: &str = "workflow.validation.required";
pub(super) const COMPLETED: &str = "workflow.task.completed";
pub(super) const STORY_COMPLETED: &str = "workflow.story.tasks_completed";
pub(super) const LIST_TASKS: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/ListStoryTasks";

pub(super) fn host() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
}

/// A host whose Planning stores these tasks.
pub(super) fn host_storing(tasks: &[&str]) -> Host {
    let tasks: Vec<TaskSummary> =
        tasks.iter().map(|id| TaskSummary { task_id: (*id).into(), ..TaskSummary::default() }).collect();
    host().answers("planning", LIST_TASKS, move |_: ListStoryTasksRequest| {
        Ok::<_, Status>(ListStoryTasksResponse { tasks: tasks.clone() })
    })
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    host.run(crate::handle, event(subject, data))
}

/// Runs an event and then the plugin's own events that follow from it; returns all that was published.
pub(super) fn settle(host: &mut Host, subject: &str, data: impl ToString) -> Vec<Published> {
    let (mut all, mut waiting) = (Vec::new(), vec![(subject.to_owned(), data.to_string())]);
    while let Some((subject, data)) = waiting.pop() {
        let run = run(host, &subject, data);
        assert_eq!(run.result, Ok(()), "{subject}");
        for message in run.published.into_iter().rev() {
            if matches!(message.subject.as_str(), OPEN | OPENED | MOVED) {
                waiting.push((message.subject.clone(), message.json().to_string()));
            }
            all.push(message);
        }
    }
    all
}

/// The tasks that were assigned.
pub(super) fn assigned(published: &[Published]) -> Vec<String> {
    let of = |message: &Published| message.json()["task_id"].as_str().unwrap_or_default().to_owned();
    published.iter().filter(|message| message.subject == ASSIGNED).map(of).collect()
}

/// The state of a task; `Null` if it is not open.
pub(super) fn state(host: &Host, task_id: &str) -> Value {
    let task: Option<Value> = host.value(&format!("task/{task_id}"), "task");
    task.map_or(Value::Null, |task| task["state"].clone())
}
