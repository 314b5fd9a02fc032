//! What they know of a task.

use rusqlite::{Row, Transaction};

use super::Refusal;
use crate::{events::Incoming, store::Error};

/// A task as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) story_id: String,
    pub(super) plan_id: String,
    pub(super) assigned: bool,
    pub(super) dispatched: bool,
    pub(super) answered: bool,
    pub(super) agent_id: String,
    pub(super) agent_role: String,
}

/// The id of the task that an event is about, known from then on with its story and its plan.
pub(super) fn of(transaction: &Transaction<'_>, event: &Incoming) -> Result<String, Refusal> {
    let text = |name| event.text(name).unwrap_or_default();
    let task_id = event.text("task_id").ok_or_else(|| Refusal::ForGood("it names no task_id".to_owned()))?;
    transaction.execute(
        "INSERT INTO tasks (task_id, story_id, plan_id) VALUES (?1, ?2, ?3)
         ON CONFLICT (task_id) DO UPDATE SET
             story_id = iif(excluded.story_id = '', story_id, excluded.story_id),
             plan_id = iif(excluded.plan_id = '', plan_id, excluded.plan_id)",
        (task_id, text("story_id"), text("plan_id")),
    )?;
    Ok(task_id.to_owned())
}

pub(super) fn get(transaction: &Transaction<'_>, task_id: &str) -> Result<Task, Error> {
    let read = |row: &Row<'_>| {
        Ok(Task {
            task_id: row.get("task_id")?,
            story_id: row.get("story_id")?,
            plan_id: row.get("plan_id")?,
            assigned: row.get("assigned")?,
            dispatched: row.get("dispatched")?,
            answered: row.get("answered")?,
            agent_id: row.get("agent_id")?,
            agent_role: row.get("agent_role")?,
        })
    };
    Ok(transaction.query_row("SELECT * FROM tasks WHERE task_id = ?1", [task_id], read)?)
}

pub(super) fn set_assigned(transaction: &Transaction<'_>, task_id: &str, is: bool) -> Result<(), Error> {
    transaction.execute("UPDATE tasks SET assigned = ?2 WHERE task_id = ?1", (task_id, is))?;
    Ok(())
}

/// To whom. Whoever has built it already stays the one who has.
pub(super) fn set_dispatched(
    transaction: &Transaction<'_>,
    task_id: &str,
    agent_id: &str,
    role: &str,
) -> Result<(), Error> {
    transaction.execute(
        "UPDATE tasks SET dispatched = 1,
             agent_id = iif(answered, agent_id, ?2), agent_role = iif(answered, agent_role, ?3)
         WHERE task_id = ?1",
        (task_id, agent_id, role),
    )?;
    Ok(())
}

/// The agent has given up, so it has to be dispatched once more.
pub(super) fn set_failed(transaction: &Transaction<'_>, task_id: &str) -> Result<(), Error> {
    transaction.execute("UPDATE tasks SET dispatched = 0, assigned = 0 WHERE task_id = ?1", [task_id])?;
    Ok(())
}

pub(super) fn set_answered(transaction: &Transaction<'_>, task_id: &str) -> Result<(), Error> {
    transaction.execute("UPDATE tasks SET answered = 1 WHERE task_id = ?1", [task_id])?;
    Ok(())
}

/// The number of the next thing that is told of a task.
pub(super) fn act(transaction: &Transaction<'_>, task_id: &str) -> Result<i64, Error> {
    Ok(transaction.query_row(
        "UPDATE tasks SET acts = acts + 1 WHERE task_id = ?1 RETURNING acts",
        [task_id],
        |row| row.get(0),
    )?)
}

/// How much was told of it so far.
pub(super) fn acts(transaction: &Transaction<'_>, task_id: &str) -> Result<i64, Error> {
    Ok(transaction.query_row("SELECT acts FROM tasks WHERE task_id = ?1", [task_id], |row| row.get(0))?)
}
