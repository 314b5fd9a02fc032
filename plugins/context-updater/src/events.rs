//! What each message means for the context of its story.

use cofferdam_sdk::{
    Failure, debug,
    fleet::{Decision, DecisionApproved, DecisionRejected, DeliberationCompleted, Incoming, Role},
    warn,
};
use fleet_proto::context::v1::ContextChange;
use serde_json::{Map, Value};

use crate::{
    dropped,
    update::{Update, tell},
};

const DECISION: &str = "DECISION";
/// Who speaks for the people: decisions are the product owner's to approve.
const PEOPLE: &str = "PO";

/// `orchestration.deliberation.completed`: each of its decisions is a proposal until somebody says yes or no to it.
pub(crate) fn decided(message: &Incoming, deliberation: DeliberationCompleted) -> Result<(), Failure> {
    if deliberation.decisions.is_empty() {
        debug!("it decided nothing"; task_id = deliberation.task_id, status = deliberation.status);
        return Ok(());
    }
    if deliberation.story_id.is_empty() {
        // A deliberation that a client asks for belongs to none, unless its task says so.
        warn!("{} decisions of no story are not told to Context; let whoever deliberates say story_id",
            deliberation.decisions.len(); task_id = deliberation.task_id);
        return dropped("no_story");
    }
    let changes = deliberation.decisions.iter().map(|decision| created(&deliberation, decision)).collect();
    let role = &deliberation.role;
    tell(
        message,
        Update {
            kind: "decided",
            role: Role::parse(role).map_or_else(|| role.clone(), |role| role.wire().to_owned()),
            story_id: deliberation.story_id,
            task_id: deliberation.task_id,
            changes,
        },
    )
}

fn created(deliberation: &DeliberationCompleted, decision: &Decision) -> ContextChange {
    let payload = object([
        ("id", decision.id.as_str()),
        ("type", &decision.kind),
        ("rationale", &decision.rationale),
        ("affected_subtask", decision.affected_subtask.as_deref().unwrap_or_default()),
        ("task_id", &deliberation.task_id),
        ("status", "proposed"),
        ("winner", &deliberation.winner_id),
        ("deliberation_id", &deliberation.deliberation_id),
        ("deliberation_status", &deliberation.status),
    ]);
    let over = [&deliberation.task_id, &deliberation.deliberation_id, &deliberation.story_id];
    let over = over.into_iter().find(|id| !id.is_empty()).map_or("", String::as_str);
    let reason = format!("the deliberation over {over} is {}", deliberation.status);
    change("CREATE", &decision.id, payload, &reason)
}

/// `planning.decision.approved`.
pub(crate) fn approved(message: &Incoming, approved: DecisionApproved) -> Result<(), Failure> {
    let comment = approved.comment.as_deref().unwrap_or_default();
    let payload = object([
        ("id", approved.decision_id.as_str()),
        ("status", "approved"),
        ("approved_by", approved.approved_by.as_deref().unwrap_or_default()),
        ("comment", comment),
    ]);
    let change = change("UPDATE", &approved.decision_id, payload, comment);
    said(message, "approved", approved.story_id, change)
}

/// `planning.decision.rejected`.
pub(crate) fn rejected(message: &Incoming, rejected: DecisionRejected) -> Result<(), Failure> {
    let payload = object([
        ("id", rejected.decision_id.as_str()),
        ("status", "rejected"),
        ("rejected_by", rejected.rejected_by.as_deref().unwrap_or_default()),
        ("reason", &rejected.reason),
    ]);
    let change = change("UPDATE", &rejected.decision_id, payload, &rejected.reason);
    said(message, "rejected", rejected.story_id, change)
}

fn said(
    message: &Incoming,
    kind: &'static str,
    story_id: String,
    change: ContextChange,
) -> Result<(), Failure> {
    let task_id = message.text(&["task_id"]).unwrap_or_default();
    tell(message, Update { kind, story_id, task_id, role: PEOPLE.into(), changes: vec![change] })
}

/// Without what is empty.
fn object<const N: usize>(texts: [(&str, &str); N]) -> Value {
    let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(said.map(|(key, text)| (key.to_owned(), text.into())).collect::<Map<_, _>>())
}

fn change(operation: &str, decision_id: &str, payload: Value, reason: &str) -> ContextChange {
    ContextChange {
        operation: operation.into(),
        entity_type: DECISION.into(),
        entity_id: decision_id.into(),
        payload: payload.to_string(),
        reason: reason.into(),
    }
}
