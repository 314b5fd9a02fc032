//! A person's word on a decision that a council came to: Planning tells it.

use super::{Incoming, Malformed, Timestamp};

/// `planning.decision.approved`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionApproved {
    pub story_id: String,
    pub decision_id: String,
    pub approved_by: Option<String>,
    pub comment: Option<String>,
    pub timestamp: Timestamp,
}

impl DecisionApproved {
    pub const SUBJECT: &'static str = "planning.decision.approved";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            story_id: message.required(&["story_id"])?,
            decision_id: message.required(&["decision_id"])?,
            approved_by: message.text(&["approved_by"]),
            comment: message.text(&["comment"]),
            timestamp: message.time("timestamp"),
        })
    }
}

/// `planning.decision.rejected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRejected {
    pub story_id: String,
    pub decision_id: String,
    pub rejected_by: Option<String>,
    pub reason: String,
    pub timestamp: Timestamp,
}

impl DecisionRejected {
    pub const SUBJECT: &'static str = "planning.decision.rejected";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            story_id: message.required(&["story_id"])?,
            decision_id: message.required(&["decision_id"])?,
            rejected_by: message.text(&["rejected_by"]),
            reason: message.required(&["reason"])?,
            timestamp: message.time("timestamp"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::event;

    fn approved(data: Value) -> Result<DecisionApproved, Malformed> {
        DecisionApproved::read(&Incoming::read(&event(DecisionApproved::SUBJECT, data)).unwrap())
    }

    fn rejected(data: Value) -> Result<DecisionRejected, Malformed> {
        DecisionRejected::read(&Incoming::read(&event(DecisionRejected::SUBJECT, data)).unwrap())
    }

    #[test]
    fn contract_2_3_an_approved_decision_needs_its_story_and_its_id() {
        let bare = approved(json!({"story_id": "S", "decision_id": "D"})).unwrap();
        assert_eq!((bare.story_id.as_str(), bare.decision_id.as_str()), ("S", "D"));
        assert_eq!((bare.approved_by, bare.comment), (None, None));
        for lacking in [json!({"story_id": "S"}), json!({"decision_id": "D", "story_id": " "})] {
            assert!(approved(lacking).is_err());
        }
        let full = json!({"event_type": DecisionApproved::SUBJECT, "producer": "planning-service",
            "timestamp": "2026-01-01T00:00:05+00:00Z",
            "payload": {"story_id": "S", "decision_id": "D", "approved_by": "ann", "comment": "Go."}});
        let full = approved(full).unwrap();
        assert_eq!((full.approved_by.as_deref(), full.comment.as_deref()), (Some("ann"), Some("Go.")));
        assert_eq!(full.timestamp.unix_seconds(), 1_767_225_605);
    }

    #[test]
    fn contract_2_3_a_rejected_decision_needs_a_reason_too() {
        let all = json!({"story_id": "S", "decision_id": "D", "rejected_by": "ann", "reason": "Too dear."});
        let read = rejected(all.clone()).unwrap();
        assert_eq!((read.rejected_by.as_deref(), read.reason.as_str()), (Some("ann"), "Too dear."));
        for key in ["story_id", "decision_id", "reason"] {
            let mut lacking = all.clone();
            lacking[key] = Value::Null;
            assert!(rejected(lacking).is_err(), "{key}");
        }
    }
}
