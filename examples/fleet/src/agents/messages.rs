//! What they tell: `agent.work.completed` to the workflow, `agent.response.completed` or `.failed` to whoever dispatched the task. Put
//! into the outbox, which sends it once.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Cause, Manner,
    pieces::Piece,
    tasks::{self, Task},
};
use crate::{
    events::{Event, hex},
    store::{Error, outbox},
};

const WORK_DONE: &str = "agent.work.completed";
const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";

pub(super) const PUBLISHED: [&str; 3] = [WORK_DONE, COMPLETED, FAILED];

/// A piece of work is through.
pub(super) fn tell(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task: &Task,
    piece: Piece,
    cause: &Cause,
) -> Result<(), Error> {
    let put = |subject: &str, what: &str, payload: Value| -> Result<(), Error> {
        let Value::Object(payload) = payload else { return Ok(()) };
        let number = tasks::act(transaction, &task.task_id)?;
        let event = Event {
            event_type: subject,
            producer: "fleet-agents",
            entity: &task.task_id,
            operation: &format!("{what}:{number}"),
            correlation_id: &cause.correlation_id,
            causation_id: cause.causation_id.as_deref(),
            payload,
        };
        outbox::put(transaction, subject, &manner.envelope.write(event))
    };
    let thought = manner.think.as_millis();
    match piece {
        Piece::Fail => put(FAILED, "failed", failed(task, thought))?,
        // Whoever dispatched it hears once that it is built.
        Piece::Implement if !task.answered => {
            tasks::set_answered(transaction, &task.task_id)?;
            put(COMPLETED, "completed", completed(task, thought))?;
        }
        _ => {}
    }
    match piece.action() {
        Some((action, role)) => put(WORK_DONE, action, done(transaction, task, piece, action, role)?),
        None => Ok(()),
    }
}

fn done(
    transaction: &Transaction<'_>,
    task: &Task,
    piece: Piece,
    action: &str,
    role: &str,
) -> Result<Value, Error> {
    let agent_id = match role {
        "developer" => task.agent_id.clone(),
        "system" => role.to_owned(),
        reviewer => format!("agent-{reviewer}-001"),
    };
    let mut payload = Map::from_iter([
        ("task_id".to_owned(), json!(task.task_id)),
        ("story_id".to_owned(), json!(task.story_id)),
        ("action".to_owned(), json!(action)),
        ("actor_role".to_owned(), json!(role)),
        ("agent_id".to_owned(), json!(agent_id)),
    ]);
    if let Some(feedback) = piece.feedback() {
        payload.insert("feedback".to_owned(), json!(feedback));
    }
    if role == "developer" {
        let number = tasks::acts(transaction, &task.task_id)?;
        payload.insert("artifacts".to_owned(), json!({"commit_sha": commit(&task.task_id, number)}));
    }
    Ok(Value::Object(payload))
}

/// What a commit would be called: forty digits, another for each.
fn commit(task_id: &str, number: i64) -> String {
    let mut name = hex(&Sha256::digest(format!("{task_id}:{number}")));
    name.truncate(40);
    name
}

/// As a Ray worker writes it.
fn completed(task: &Task, duration_ms: u128) -> Value {
    let Task { task_id, story_id, plan_id, agent_id, agent_role, .. } = task;
    let content = format!("Built {task_id} as it was dispatched; its tests pass here.");
    json!({
        "task_id": task_id,
        "story_id": story_id,
        "agent_id": agent_id,
        "role": agent_role,
        "status": "completed",
        "duration_ms": duration_ms,
        "checks_passed": true,
        "proposal": {
            "content": content,
            "author_id": agent_id,
            "author_role": agent_role,
            "model": "simulated",
            "temperature": 0,
            "tokens": content.chars().count().div_ceil(4),
        },
        "operations": [],
        "artifacts": {},
        "audit_trail": [],
        "success": true,
        "num_agents": 1,
        "constraints": {
            "story_id": story_id,
            "plan_id": plan_id,
            "metadata": {"task_id": task_id, "story_id": story_id, "num_agents": 1},
        },
    })
}

fn failed(task: &Task, duration_ms: u128) -> Value {
    json!({
        "task_id": task.task_id,
        "story_id": task.story_id,
        "agent_id": task.agent_id,
        "role": task.agent_role,
        "status": "failed",
        "error": "gave up on demand (--fail)",
        "error_type": "OnDemand",
        "num_agents": 1,
        "duration_ms": duration_ms,
        "metadata": {"task_id": task.task_id},
    })
}
