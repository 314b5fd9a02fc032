//! What the orchestrator tells of tasks, plans and deliberations, and what Context tells in turn.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Incoming, Malformed, Outgoing, Timestamp, lenient};

/// `orchestration.task.dispatched`: an agent is to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDispatched {
    pub task_id: String,
    pub story_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    pub agent_id: String,
    /// As the orchestrator knows it: `DEV`.
    pub role: String,
    pub description: String,
    /// What the council proposed, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<String>,
    /// From 1; one more each time that the task is dispatched.
    pub attempt: u32,
    pub timestamp: Timestamp,
}

impl Outgoing for TaskDispatched {
    const SUBJECT: &'static str = "orchestration.task.dispatched";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `orchestration.task.completed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratedTaskCompleted {
    pub task_id: String,
    pub story_id: String,
    pub agent_id: String,
    pub role: String,
    pub duration_ms: i64,
    pub checks_passed: bool,
    pub timestamp: Timestamp,
}

impl Outgoing for OrchestratedTaskCompleted {
    const SUBJECT: &'static str = "orchestration.task.completed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `orchestration.task.failed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratedTaskFailed {
    pub task_id: String,
    pub story_id: String,
    pub agent_id: String,
    pub role: String,
    pub error: String,
    pub error_type: String,
    pub timestamp: Timestamp,
}

impl Outgoing for OrchestratedTaskFailed {
    const SUBJECT: &'static str = "orchestration.task.failed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `orchestration.plan.approved`: the deliberations over a plan are over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratedPlanApproved {
    /// The plan's id again: whatever the orchestrator tells has one.
    pub task_id: String,
    pub plan_id: String,
    pub story_id: String,
    pub approved_by: String,
    /// As they were asked for.
    pub roles: Vec<String>,
    pub timestamp: Timestamp,
}

impl Outgoing for OrchestratedPlanApproved {
    const SUBJECT: &'static str = "orchestration.plan.approved";

    fn entity(&self) -> &str {
        &self.plan_id
    }
}

/// `orchestration.phase.changed`: a story went on to another phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseChanged {
    /// Empty: it concerns no task.
    pub task_id: String,
    pub story_id: String,
    pub from_phase: String,
    pub to_phase: String,
    pub timestamp: Timestamp,
}

impl Outgoing for PhaseChanged {
    const SUBJECT: &'static str = "orchestration.phase.changed";

    fn entity(&self) -> &str {
        &self.story_id
    }
}

/// `orchestration.deliberation.completed`: several agents have answered, or none did in time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeliberationCompleted {
    pub task_id: String,
    pub story_id: String,
    /// For Context: what was decided. Empty if nothing was.
    pub decisions: Vec<Decision>,
    pub deliberation_id: String,
    /// `completed`, `failed` or `timeout`.
    pub status: String,
    pub role: String,
    /// Who won: the author of rank 1, unless an architect chose another. Empty if nobody did.
    pub winner_id: String,
    /// The winner's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answers, best first: `agent_id`, `role`, `proposal`, `score`, `rank`, `checks_passed`.
    pub results: Vec<Value>,
    /// `agent_id`, `error`, `error_type`.
    pub failed_agents: Vec<Value>,
    pub total_agents: u32,
    pub successful_responses: u32,
    pub failed_responses: u32,
    pub duration_ms: i64,
    pub completed_at: Timestamp,
    pub timestamp: Timestamp,
}

/// One of the decisions that came of a deliberation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub id: String,
    /// `TECHNICAL`, unless the message says otherwise.
    #[serde(rename = "type")]
    pub kind: String,
    pub rationale: String,
    /// The task that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affected_subtask: Option<String>,
}

impl DeliberationCompleted {
    /// Tolerantly: other orchestrators leave out most of it. A task, a story or the deliberation itself has to be named.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let subject = message.required(&["task_id", "deliberation_id", "story_id"])?;
        let values = |path: &str| message.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
        let count = |path: &str| message.int(path).and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        let text = |paths: &[&str]| message.text(paths).unwrap_or_default();
        let objects = values("decisions");
        let objects = objects.iter().filter_map(Value::as_object).enumerate();
        Ok(Self {
            decisions: objects.map(|(n, decision)| Decision::read(&subject, n, decision)).collect(),
            story_id: text(&["story_id", "constraints.story_id", "constraints.metadata.story_id"]),
            deliberation_id: text(&["deliberation_id"]),
            status: message.text(&["status"]).unwrap_or_else(|| "completed".into()),
            role: text(&["role"]),
            winner_id: text(&["winner_id"]),
            result: message.text(&["result", "result.proposal", "result.content"]),
            error: message.text(&["error"]),
            results: values("results"),
            failed_agents: values("failed_agents"),
            total_agents: count("total_agents"),
            successful_responses: count("successful_responses"),
            failed_responses: count("failed_responses"),
            duration_ms: message.int("duration_ms").unwrap_or_default(),
            completed_at: message.time("completed_at"),
            timestamp: message.time("timestamp"),
            task_id: text(&["task_id"]),
        })
    }
}

impl Decision {
    fn read(subject: &str, place: usize, object: &Map<String, Value>) -> Self {
        let text = |key: &str| object.get(key).and_then(lenient::text);
        Self {
            id: text("id").unwrap_or_else(|| format!("DEC-{subject}-{place}")),
            kind: text("type").unwrap_or_else(|| "TECHNICAL".into()),
            rationale: text("rationale").unwrap_or_default(),
            affected_subtask: text("affected_subtask"),
        }
    }
}

impl Outgoing for DeliberationCompleted {
    const SUBJECT: &'static str = "orchestration.deliberation.completed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `context.updated`: what agents are told of a story has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextUpdated {
    pub story_id: String,
    pub task_id: String,
    /// Ids of what changed.
    pub changed: Vec<String>,
    pub snapshot: Snapshot,
    pub timestamp: Timestamp,
}

/// Which state of the context it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: i32,
    pub hash: String,
}

impl Outgoing for ContextUpdated {
    const SUBJECT: &'static str = "context.updated";

    fn entity(&self) -> &str {
        &self.story_id
    }
}

/// `cofferdam.queue.ready`, from the queue to whoever deliberates: this task is next, and wants a council first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueReady {
    pub task_id: String,
    pub story_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// As the orchestrator knows it.
    pub role: String,
    pub description: String,
    pub constraints: QueueConstraints,
    pub attempt: u32,
    pub timestamp: Timestamp,
}

/// As `TaskConstraints` of the orchestrator's service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueConstraints {
    pub rubric: String,
    pub requirements: Vec<String>,
    pub metadata: std::collections::BTreeMap<String, String>,
    pub max_iterations: i32,
    pub timeout_seconds: i32,
}

impl QueueReady {
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let constraints = message.at("constraints").cloned().unwrap_or_default();
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.text(&["story_id"]).unwrap_or_default(),
            plan_id: message.text(&["plan_id"]),
            role: message.required(&["role"])?,
            description: message.text(&["description"]).unwrap_or_default(),
            constraints: serde_json::from_value(constraints).unwrap_or_default(),
            attempt: message.int("attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            timestamp: message.time("timestamp"),
        })
    }
}

impl Outgoing for QueueReady {
    const SUBJECT: &'static str = "cofferdam.queue.ready";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.queue.deliberated`, the answer to [`QueueReady`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDeliberated {
    pub task_id: String,
    pub story_id: String,
    pub attempt: u32,
    /// The winner. Empty if there is none: then `error` says why.
    pub agent_id: String,
    pub proposal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    pub timestamp: Timestamp,
}

impl QueueDeliberated {
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.text(&["story_id"]).unwrap_or_default(),
            attempt: message.int("attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            agent_id: message.text(&["agent_id"]).unwrap_or_default(),
            proposal: message.text(&["proposal"]).unwrap_or_default(),
            error: message.text(&["error"]),
            error_type: message.text(&["error_type"]),
            timestamp: message.time("timestamp"),
        })
    }
}

impl Outgoing for QueueDeliberated {
    const SUBJECT: &'static str = "cofferdam.queue.deliberated";

    fn entity(&self) -> &str {
        &self.task_id
    }
}
