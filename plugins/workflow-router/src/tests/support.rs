//! A host with the plugin's own manifest, a loop that brings the plugin its own events, and the usual messages and calls.

use cofferdam_sdk::{
    Failure,
    rpc::Status,
    testing::{self, Host, Published, Run, Served, event},
};
use fleet_proto::{
    task_derivation::v1::{ListStoryTasksRequest, ListStoryTasksResponse, TaskSummary},
    workflow::v1::{
        ClaimTaskRequest, ClaimTaskResponse, GetPendingTasksRequest, GetStatsRequest,
        GetWorkflowStateRequest, PendingTasksResponse, RequestValidationRequest, StatsResponse, WorkResult,
    },
};
use prost::Message;
use serde_json::{Value, json};

pub(super) const CREATED: &str = "planning.task.created";
pub(super) const TRANSITIONED: &str = "planning.story.transitioned";
pub(super) const DERIVED: &str = "task.derivation.completed";
pub(super) const CHANGED: &str = "workflow.state.changed";
pub(super) const ASSIGNED: &str = "workflow.task.assigned";
pub(super) const OPEN: &str = "cofferdam.workflow.open";
pub(super) const OPENED: &str = "cofferdam.workflow.opened";
pub(super) const MOVED: &str = "cofferdam.workflow.moved";
pub(super) const BOARD: &str = "cofferdam.workflow.board";
pub(super) const WAITING: &str = "cofferdam.workflow.waiting";
pub(super) const WORK: &str = "agent.work.completed";
pub(super) const VALIDATION: &str = "workflow.validation.required";
pub(super) const COMPLETED: &str = "workflow.task.completed";
pub(super) const STORY_COMPLETED: &str = "workflow.story.tasks_completed";
pub(super) const LIST_TASKS: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/ListStoryTasks";
pub(super) const OWN: [&str; 4] = [OPEN, OPENED, MOVED, BOARD];
const SERVICE: &str = "fleet.workflow.v1.WorkflowOrchestrationService";

/// Long enough for a guard.
pub(super) const WHY: &str = "the indexes are missing";

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

/// A host with the task T of the story S, open and assigned, which its board knows.
pub(super) fn opened() -> Host {
    let mut host = host();
    settle(&mut host, CREATED, json!({"task_id": "T", "story_id": "S"}));
    host
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    host.run(crate::handle, event(subject, data))
}

/// Runs an event and then the plugin's own events that follow from it; returns all that was published.
pub(super) fn settle(host: &mut Host, subject: &str, data: impl ToString) -> Vec<Published> {
    let run = run(host, subject, data);
    assert_eq!(run.result, Ok(()), "{subject}");
    follow(host, run.published)
}

/// Runs the plugin's own events among these, and what follows from them; returns all that was published.
pub(super) fn follow(host: &mut Host, published: Vec<Published>) -> Vec<Published> {
    let (mut all, mut waiting) = (Vec::new(), published);
    waiting.reverse();
    while let Some(message) = waiting.pop() {
        if OWN.contains(&message.subject.as_str()) {
            let run = run(host, &message.subject, message.json());
            assert_eq!(run.result, Ok(()), "{}", message.subject);
            waiting.extend(run.published.into_iter().rev());
        }
        all.push(message);
    }
    all
}

/// What a run told others than the boards, which hear of every change, and first.
pub(super) fn told(run: &Run) -> Vec<&str> {
    let subjects = run.subjects();
    let boards = subjects.iter().take_while(|subject| **subject == BOARD).count();
    assert!(!subjects[boards..].contains(&BOARD) && boards <= 1, "{subjects:?}");
    subjects[boards..].to_vec()
}

/// The tasks that were assigned.
pub(super) fn assigned(published: &[Published]) -> Vec<String> {
    let of = |message: &Published| message.json()["task_id"].as_str().unwrap_or_default().to_owned();
    published.iter().filter(|message| message.subject == ASSIGNED).map(of).collect()
}

/// The state of a task; `Null` if it is not open.
pub(super) fn state(host: &Host, task_id: &str) -> Value {
    stored(host, task_id)["state"].clone()
}

pub(super) fn stored(host: &Host, task_id: &str) -> Value {
    host.value(&format!("task/{task_id}"), "task").unwrap_or_default()
}

/// What an agent says that it did to T.
pub(super) fn act(action: &str, role: &str) -> Value {
    json!({"task_id": "T", "story_id": "S", "action": action, "actor_role": role, "feedback": WHY, "agent_id": "a-1"})
}

/// Each is a message of its own.
pub(super) fn does(host: &mut Host, action: &str, role: &str) -> Run {
    does_as(host, act(action, role))
}

pub(super) fn does_as(host: &mut Host, mut message: Value) -> Run {
    message["nonce"] = json!(history(host).len());
    let run = run(host, WORK, message);
    follow(host, run.published.clone());
    run
}

pub(super) fn history(host: &Host) -> Vec<Value> {
    stored(host, "T")["history"].as_array().cloned().unwrap_or_default()
}

/// The actions of the hops that a run told.
pub(super) fn hops(run: &Run) -> Vec<String> {
    run.on(CHANGED).iter().map(|hop| hop["action"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn retried(run: &Run) -> bool {
    matches!(run.result, Err(Failure::Retry { .. })) && run.published.is_empty()
}

/// Acked, and of no effect but that it is known.
pub(super) fn dropped(run: &Run) -> bool {
    run.result == Ok(()) && run.published.is_empty() && run.timers.is_empty()
}

/// The actions of a task that nobody rejects.
pub(super) const STRAIGHT: [(&str, &str); 4] = [
    ("commit_code", "developer"),
    ("approve_design", "architect"),
    ("approve_tests", "qa"),
    ("approve_story", "po"),
];

/// An action on a task of S, with all that follows: the subjects that were published.
pub(super) fn settle_work(host: &mut Host, task: &str, action: &str, role: &str) -> Vec<String> {
    let message =
        json!({"task_id": task, "story_id": "S", "action": action, "actor_role": role, "feedback": WHY});
    settle(host, WORK, message).into_iter().map(|message| message.subject).collect()
}

pub(super) fn finish(host: &mut Host, task: &str) -> Vec<String> {
    STRAIGHT.iter().flat_map(|(action, role)| settle_work(host, task, action, role)).collect()
}

/// A call of a method with a key. What it publishes is not brought to the plugin.
pub(super) fn serve(host: &mut Host, method: &str, request: &impl Message, key: &str) -> Served {
    host.serve(crate::serve, testing::call(&format!("{SERVICE}/{method}"), request).key(key))
}

pub(super) fn get_state(host: &mut Host, task_id: &str) -> Served {
    serve(host, "GetWorkflowState", &GetWorkflowStateRequest { task_id: task_id.into() }, task_id)
}

pub(super) fn validate(host: &mut Host, task_id: &str, role: &str, action: &str) -> Served {
    let result = WorkResult { feedback: WHY.into(), ..WorkResult::default() };
    validate_with(host, task_id, role, action, result)
}

pub(super) fn validate_with(
    host: &mut Host,
    task_id: &str,
    role: &str,
    action: &str,
    result: WorkResult,
) -> Served {
    let request = RequestValidationRequest {
        task_id: task_id.into(),
        role: role.into(),
        action: action.into(),
        result: Some(result),
        agent_id: "a-1".into(),
    };
    serve(host, "RequestValidation", &request, task_id)
}

pub(super) fn try_claim(host: &mut Host, task_id: &str, agent_id: &str, role: &str) -> Served {
    let request = ClaimTaskRequest { task_id: task_id.into(), agent_id: agent_id.into(), role: role.into() };
    serve(host, "ClaimTask", &request, task_id)
}

/// A claim, with all that follows.
pub(super) fn claim(host: &mut Host, task_id: &str, agent_id: &str, role: &str) -> ClaimTaskResponse {
    let served = try_claim(host, task_id, agent_id, role);
    follow(host, served.published.clone());
    served.read()
}

pub(super) fn try_pending(host: &mut Host, role: &str, limit: i32, offset: i32) -> Served {
    serve(host, "GetPendingTasks", &GetPendingTasksRequest { role: role.into(), limit, offset }, "")
}

pub(super) fn pending(host: &mut Host, role: &str) -> PendingTasksResponse {
    try_pending(host, role, 0, 0).read()
}

pub(super) fn stats(host: &mut Host, story_id: &str, role: &str) -> StatsResponse {
    let request = GetStatsRequest { story_id: story_id.into(), role: role.into() };
    serve(host, "GetStats", &request, "").read()
}
