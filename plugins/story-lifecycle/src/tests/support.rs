//! A host with the plugin's own manifest, and what a story goes through in it.

use cofferdam_sdk::{
    Event,
    rpc::Status,
    testing::{Host, Run, Served, call, event},
};
use fleet_proto::{
    planning::v2::{GetStoryRequest, Story, TransitionStoryRequest, TransitionStoryResponse},
    task_derivation::v1::{ListStoryTasksRequest, ListStoryTasksResponse, TaskSummary},
};
use serde_json::{Value, json};

pub(super) const CREATED: &str = "planning.story.created";
pub(super) const TRANSITIONED: &str = "planning.story.transitioned";
pub(super) const TASK: &str = "planning.task.created";
pub(super) const DERIVED: &str = "task.derivation.completed";
pub(super) const CHANGED: &str = "workflow.state.changed";
pub(super) const THROUGH: &str = "workflow.story.tasks_completed";
pub(super) const LIST_TASKS: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/ListStoryTasks";
const TRANSITION: &str = "fleet.planning.v2.PlanningService/TransitionStory";
const GET: &str = "fleet.planning.v2.PlanningService/GetStory";

pub(super) const STATES: [&str; 13] = [
    "DRAFT",
    "PO_REVIEW",
    "READY_FOR_PLANNING",
    "PLANNED",
    "READY_FOR_EXECUTION",
    "IN_PROGRESS",
    "CODE_REVIEW",
    "TESTING",
    "READY_TO_REVIEW",
    "ACCEPTED",
    "CARRY_OVER",
    "DONE",
    "ARCHIVED",
];

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

/// A host in which the story `S` is in this state, by another service's word.
pub(super) fn host_at(state: &str) -> Host {
    let mut host = host();
    let told = json!({"story_id": "S", "to_state": state});
    assert_eq!(run(&mut host, TRANSITIONED, told).result, Ok(()));
    assert_eq!(self::state(&host), state);
    host
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    take(host, event(subject, data))
}

pub(super) fn take(host: &mut Host, event: Event) -> Run {
    host.run(crate::handle, event)
}

pub(super) fn derived() -> Value {
    json!({"plan_id": "P", "story_id": "S", "task_count": 2, "status": "success"})
}

/// A task of the story comes into this state.
pub(super) fn task_in(state: &str) -> Value {
    json!({"task_id": "T", "story_id": "S", "from_state": "todo", "to_state": state, "action": "assign_to_developer"})
}

pub(super) fn through() -> Value {
    json!({"story_id": "S", "all_tasks_status": "done", "task_count": 2})
}

/// `TransitionStory` of the story `S`.
pub(super) fn go(host: &mut Host, target: &str) -> TransitionStoryResponse {
    let served = ask(host, "S", target);
    served.read()
}

pub(super) fn ask(host: &mut Host, story_id: &str, target: &str) -> Served {
    let request = TransitionStoryRequest {
        story_id: story_id.into(),
        target_state: target.into(),
        transitioned_by: "ann".into(),
    };
    host.serve(crate::service::serve, call(TRANSITION, &request).key(story_id))
}

pub(super) fn get(host: &mut Host, story_id: &str) -> Served {
    let request = GetStoryRequest { story_id: story_id.into() };
    host.serve(crate::service::serve, call(GET, &request).key(story_id))
}

pub(super) fn shown(host: &mut Host) -> Story {
    get(host, "S").read()
}

/// Where the story `S` is; empty if nobody has told.
pub(super) fn state(host: &Host) -> String {
    let story: Option<Value> = host.value("story/S", "story");
    story.and_then(|story| story["state"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// The steps that a run told.
pub(super) fn steps(run: &Run) -> Vec<(String, String)> {
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    run.on(TRANSITIONED).iter().map(|step| (text(step, "from_state"), text(step, "to_state"))).collect()
}

/// The same in short: `A>B B>C`.
pub(super) fn way(run: &Run) -> String {
    steps(run).iter().map(|(from, to)| format!("{from}>{to}")).collect::<Vec<_>>().join(" ")
}
