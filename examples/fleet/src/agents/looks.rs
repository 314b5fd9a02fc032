//! Who finds fault with which task. Each finds as many faults as they were told to, each with another task's first look, and where
//! there are few tasks, with one that somebody else has found fault with.

use rusqlite::Transaction;

use crate::store::{Error, now};

/// Whether `by`, who finds fault with so many tasks in all, does so now. Only the first look at a task counts.
pub(super) fn finds_fault(
    transaction: &Transaction<'_>,
    task_id: &str,
    by: &str,
    faults: u32,
) -> Result<bool, Error> {
    let seen: bool = transaction.query_row(
        "SELECT EXISTS (SELECT * FROM looks WHERE task_id = ?1 AND by = ?2)",
        (task_id, by),
        |row| row.get(0),
    )?;
    if seen {
        return Ok(false);
    }
    let found: u32 =
        transaction
            .query_row("SELECT count(*) FROM looks WHERE fault AND by = ?1", [by], |row| row.get(0))?;
    let touched: bool = transaction.query_row(
        "SELECT EXISTS (SELECT * FROM looks WHERE fault AND task_id = ?1)",
        [task_id],
        |row| row.get(0),
    )?;
    // Others that are known, are still to be looked at, and that nobody has found fault with.
    let better: u32 = transaction.query_row(
        "SELECT count(*) FROM tasks WHERE task_id != ?1
             AND NOT EXISTS (SELECT * FROM looks WHERE task_id = tasks.task_id AND (by = ?2 OR fault))",
        (task_id, by),
        |row| row.get(0),
    )?;
    let left = faults.saturating_sub(found);
    let fault = left > 0 && (!touched || better < left);
    transaction.execute(
        "INSERT INTO looks (task_id, by, fault, looked_at) VALUES (?1, ?2, ?3, ?4)",
        (task_id, by, fault, now()),
    )?;
    Ok(fault)
}
