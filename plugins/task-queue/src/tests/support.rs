//! A host with the plugin's own manifest, a loop that brings the plugin its own events, and the usual messages.

use cofferdam_sdk::{
    Event,
    testing::{self, Host, Published, Run, Scheduled, Served, event},
};
use fleet_proto::queue::v1::{
    GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse, QueuedTask,
};
use serde_json::{Value, json};

pub(super) const CREATED: &str = "planning.task.created";
pub(super) const ASSIGNED: &str = "workflow.task.assigned";
pub(super) const ANSWERED: &str = "agent.response.completed";
pub(super) const AGENT_FAILED: &str = "agent.response.failed";
pub(super) const READY: &str = "cofferdam.queue.ready";
pub(super) const DELIBERATED: &str = "cofferdam.queue.deliberated";
pub(super) const CHANGED: &str = "cofferdam.queue.changed";
pub(super) const GO: &str = "cofferdam.queue.go";
pub(super) const UNEXPLAINED: &str = "cofferdam.queue.unexplained";
pub(super) const OVERDUE: &str = "cofferdam.queue.overdue";
pub(super) const BLOCKED: &str = "cofferdam.queue.blocked";
pub(super) const DISPATCHED: &str = "orchestration.task.dispatched";
pub(super) const COMPLETED: &str = "orchestration.task.completed";
pub(super) const FAILED: &str = "orchestration.task.failed";
pub(super) const OWN: [&str; 2] = [CHANGED, GO];
const SERVICE: &str = "cofferdam.queue.v1.TaskQueueService";

/// As the manifest has it: one at a time, and a council first.
pub(super) fn host() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
}

/// Without a council, and as many as are ready.
pub(super) fn direct() -> Host {
    host().config("requires_pre_deliberation", false).config("max_in_progress", 0)
}

/// Without a council, one at a time.
pub(super) fn one_by_one() -> Host {
    host().config("requires_pre_deliberation", false)
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    host.run(crate::handle, event(subject, data))
}

/// Runs an event and then the plugin's own events that follow from it; returns all that was published.
pub(super) fn settle(host: &mut Host, subject: &str, data: impl ToString) -> Told {
    take(host, event(subject, data))
}

pub(super) fn take(host: &mut Host, event: Event) -> Told {
    let subject = event.subject.clone();
    let run = host.run(crate::handle, event);
    assert_eq!(run.result, Ok(()), "{subject}");
    follow(host, run)
}

/// Brings the plugin its own events, in order, and what follows from them.
pub(super) fn follow(host: &mut Host, run: Run) -> Told {
    let mut told = Told::default();
    let mut waiting: std::collections::VecDeque<Published> = told.add(run).into();
    while let Some(message) = waiting.pop_front() {
        let run = self::run(host, &message.subject, message.json());
        assert_eq!(run.result, Ok(()), "{}", message.subject);
        waiting.extend(told.add(run));
    }
    told
}

/// What was told in several runs.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) published: Vec<Published>,
    pub(super) timers: Vec<Scheduled>,
    pub(super) cancelled: Vec<String>,
}

impl Told {
    /// The plugin's own events among them.
    fn add(&mut self, run: Run) -> Vec<Published> {
        self.timers.extend(run.timers);
        self.cancelled.extend(run.cancelled);
        self.published.extend(run.published.clone());
        run.published.into_iter().filter(|message| OWN.contains(&message.subject.as_str())).collect()
    }

    /// The payloads of a subject.
    pub(super) fn on(&self, subject: &str) -> Vec<Value> {
        let of = self.published.iter().filter(|message| message.subject == subject);
        of.map(|message| message.json()["payload"].clone()).collect()
    }

    /// The tasks that a subject is about.
    pub(super) fn tasks(&self, subject: &str) -> Vec<String> {
        self.on(subject).iter().map(|payload| payload["task_id"].as_str().unwrap().to_owned()).collect()
    }

    /// The subjects, without the plugin's own events.
    pub(super) fn subjects(&self) -> Vec<&str> {
        let all = self.published.iter().map(|message| message.subject.as_str());
        all.filter(|subject| !OWN.contains(subject)).collect()
    }

    /// The last timer that was set for a subject.
    pub(super) fn timer(&self, subject: &str) -> &Scheduled {
        self.timers.iter().rfind(|timer| timer.subject == subject).expect("a timer")
    }
}

/// What Planning tells of a task of S.
pub(super) fn created(task_id: &str) -> Value {
    json!({"task_id": task_id, "story_id": "S", "plan_id": "P", "title": format!("do {task_id}"), "assigned_to": "DEVELOPER"})
}

pub(super) fn depending(task_id: &str, on: &[&str]) -> Value {
    let mut created = created(task_id);
    created["depends_on"] = json!(on);
    created
}

pub(super) fn prior(task_id: &str, priority: i64) -> Value {
    let mut created = created(task_id);
    created["priority"] = json!(priority);
    created
}

pub(super) fn assigned(task_id: &str) -> Value {
    json!({
        "task_id": task_id, "story_id": "S", "role": "developer", "assigned_to_role": "developer",
        "action": "IMPLEMENT_FEATURE", "required_action": "IMPLEMENT_FEATURE", "action_required": "commit_code",
    })
}

pub(super) fn answer(task_id: &str) -> Value {
    json!({"task_id": task_id, "agent_id": "dev-7", "role": "DEV", "status": "completed", "duration_ms": 12, "num_agents": 1})
}

pub(super) fn failure(task_id: &str) -> Value {
    json!({"task_id": task_id, "agent_id": "dev-7", "role": "DEV", "error": "out of memory", "error_type": "OOM"})
}

pub(super) fn deliberated(task_id: &str, attempt: u32) -> Value {
    json!({"task_id": task_id, "story_id": "S", "attempt": attempt, "agent_id": "agent-dev-002", "proposal": "thus"})
}

/// How a task stands, as it is kept; `Null` if it is not known.
pub(super) fn stored(host: &Host, task_id: &str) -> Value {
    host.value(&format!("task/{task_id}"), "task").unwrap_or_default()
}

pub(super) fn queue(host: &Host) -> Value {
    host.value("queue/main", "queue").unwrap_or_default()
}

pub(super) fn get(host: &mut Host, task_id: &str) -> GetTaskResponse {
    try_get(host, task_id).read()
}

pub(super) fn try_get(host: &mut Host, task_id: &str) -> Served {
    let request = GetTaskRequest { task_id: task_id.into() };
    host.serve(crate::serve, testing::call(&format!("{SERVICE}/GetTask"), &request).key(task_id))
}

pub(super) fn status(host: &mut Host, task_id: &str) -> String {
    get(host, task_id).status
}

pub(super) fn list(host: &mut Host, story_id: &str) -> Vec<QueuedTask> {
    let request = ListTasksRequest { story_id: story_id.into() };
    let served = host.serve(crate::serve, testing::call(&format!("{SERVICE}/ListTasks"), &request));
    served.read::<ListTasksResponse>().tasks
}

/// The tasks in the queue, in order.
pub(super) fn listed(host: &mut Host) -> Vec<String> {
    list(host, "").into_iter().map(|task| task.task_id).collect()
}
