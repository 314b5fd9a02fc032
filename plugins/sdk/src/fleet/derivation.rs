//! The messages at the two ends of task derivation.

use serde::{Deserialize, Serialize};

use super::{Incoming, Malformed, Outgoing, Timestamp};

/// `planning.plan.approved`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanApproved {
    pub plan_id: String,
    pub story_id: Option<String>,
    pub approved_by: Option<String>,
    /// As they were sent; nothing if the message names none.
    pub roles: Vec<String>,
    pub timestamp: Timestamp,
}

impl PlanApproved {
    pub const SUBJECT: &'static str = "planning.plan.approved";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            plan_id: message.required(&["plan_id"])?,
            story_id: message.text(&["story_id"]),
            approved_by: message.text(&["approved_by"]),
            roles: message.list("roles").unwrap_or_default(),
            timestamp: message.time("timestamp"),
        })
    }
}

/// `task.derivation.requested`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivationRequested {
    pub plan_id: String,
    pub story_id: Option<String>,
    /// As they were sent; nothing if the message names none.
    pub roles: Vec<String>,
    pub requested_by: Option<String>,
    pub occurred_at: Timestamp,
}

impl DerivationRequested {
    pub const SUBJECT: &'static str = "task.derivation.requested";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            plan_id: message.required(&["plan_id"])?,
            story_id: message.text(&["story_id"]),
            roles: message.list("roles").unwrap_or_default(),
            requested_by: message.text(&["requested_by"]),
            occurred_at: message.time("occurred_at"),
        })
    }
}

/// `task.derivation.completed`. The time is filled in when it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivationCompleted {
    pub plan_id: String,
    pub story_id: String,
    pub task_count: u32,
    status: String,
    /// The deliberation's id if known, see [`Record::request_id`](super::Record::request_id).
    pub derivation_request_id: String,
}

impl DerivationCompleted {
    pub fn new(plan_id: &str, story_id: &str, task_count: u32, derivation_request_id: &str) -> Self {
        Self {
            plan_id: plan_id.into(),
            story_id: story_id.into(),
            task_count,
            status: "success".into(),
            derivation_request_id: derivation_request_id.into(),
        }
    }

    /// The story identifies it for its readers; a negative or missing count reads as 0.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            plan_id: message.text(&["plan_id"]).unwrap_or_default(),
            story_id: message.required(&["story_id"])?,
            task_count: message.int("task_count").and_then(|count| count.try_into().ok()).unwrap_or(0),
            status: message.text(&["status"]).unwrap_or_default(),
            derivation_request_id: message.text(&["derivation_request_id"]).unwrap_or_default(),
        })
    }
}

impl Outgoing for DerivationCompleted {
    const SUBJECT: &'static str = "task.derivation.completed";
    const TIME: &'static str = "occurred_at";

    fn entity(&self) -> &str {
        &self.plan_id
    }
}

/// `task.derivation.failed`. The time is filled in when it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivationFailed {
    pub plan_id: String,
    pub story_id: String,
    status: String,
    /// `<error kind>: <what happened>`.
    pub reason: String,
    pub requires_manual_review: bool,
    pub derivation_request_id: String,
}

impl DerivationFailed {
    pub fn new(plan_id: &str, story_id: &str, reason: &str, derivation_request_id: &str) -> Self {
        Self {
            plan_id: plan_id.into(),
            story_id: story_id.into(),
            status: "failed".into(),
            reason: reason.into(),
            requires_manual_review: true,
            derivation_request_id: derivation_request_id.into(),
        }
    }
}

impl Outgoing for DerivationFailed {
    const SUBJECT: &'static str = "task.derivation.failed";
    const TIME: &'static str = "occurred_at";

    fn entity(&self) -> &str {
        &self.plan_id
    }
}
