//! Developers: one begins once the workflow has assigned a task and the orchestrator has dispatched it, in whichever order. A task
//! that is started over is assigned again and not dispatched again.

use rusqlite::Transaction;

use super::{Cause, Manner, Refusal, looks, pieces::Piece, tasks, work};
use crate::events::Incoming;

/// `orchestration.task.dispatched`.
pub(super) fn dispatched(
    transaction: &Transaction<'_>,
    manner: &Manner,
    event: &Incoming,
    cause: &Cause,
) -> Result<(), Refusal> {
    let task_id = tasks::of(transaction, event)?;
    let agent_id = event.text("agent_id").unwrap_or("agent-dev-001");
    let role = event.text("role").unwrap_or("DEV");
    tasks::set_dispatched(transaction, &task_id, agent_id, role)?;
    tracing::info!(task_id, agent_id, role, "dispatched");
    begin(transaction, manner, &task_id, cause)
}

/// Assigned for the first time, or anew.
pub(super) fn assigned(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    tasks::set_assigned(transaction, task_id, true)?;
    tracing::info!(task_id, "assigned to a developer");
    begin(transaction, manner, task_id, cause)
}

/// A reviewer has found fault with it.
pub(super) fn sent_back(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    tracing::info!(task_id, "sent back to its developer");
    Ok(work::begin(transaction, manner, task_id, Piece::Revise, cause)?)
}

fn begin(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    let task = tasks::get(transaction, task_id)?;
    if !(task.assigned && task.dispatched) {
        return Ok(());
    }
    tasks::set_assigned(transaction, task_id, false)?;
    let piece = if !task.answered && looks::finds_fault(transaction, task_id, "agent", manner.fail)? {
        tasks::set_failed(transaction, task_id)?;
        Piece::Fail
    } else if looks::finds_fault(transaction, task_id, "system", manner.retries)? {
        Piece::StartOver
    } else {
        Piece::Implement
    };
    Ok(work::begin(transaction, manner, task_id, piece, cause)?)
}
