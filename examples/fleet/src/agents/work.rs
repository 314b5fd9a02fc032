//! What is being done: pieces of work with the time at which each is through. A piece goes and what it leads to is owed to the bus in one
//! transaction, so that whoever dies over it has either done it or not begun.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::{Agents, Cause, Manner, messages, pieces::Piece, tasks};
use crate::store::Error;

/// How long to wait without news: for clocks that are set, above all.
const LOOK: Duration = Duration::from_secs(1);

/// The states of a story in which its tasks may be approved: the sprint's, and those after it.
const SPRINT: &str =
    "'READY_FOR_EXECUTION', 'IN_PROGRESS', 'CODE_REVIEW', 'TESTING', 'READY_TO_REVIEW', 'ACCEPTED', 'DONE'";

/// A piece of work under way.
struct Due {
    number: i64,
    task_id: String,
    piece: String,
    cause: Cause,
}

/// Somebody begins. A task has one thing to be done at a time, and the last word counts.
pub(super) fn begin(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    piece: Piece,
    cause: &Cause,
) -> Result<(), Error> {
    stop(transaction, task_id)?;
    let think = i64::try_from(manner.think.as_millis()).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO work (task_id, piece, due_ms, correlation_id, causation_id) VALUES (?1, ?2, ?3, ?4, ?5)",
        (task_id, piece.name(), clock().saturating_add(think), &cause.correlation_id, &cause.causation_id),
    )?;
    Ok(())
}

/// Whatever is being done for a task is not wanted any more.
pub(super) fn stop(transaction: &Transaction<'_>, task_id: &str) -> Result<(), Error> {
    transaction.execute("DELETE FROM work WHERE task_id = ?1", [task_id])?;
    Ok(())
}

/// Ends each piece in its time, for ever. Fails only if the database does.
pub(super) async fn run(agents: &Agents) -> anyhow::Result<()> {
    let mut news = agents.news();
    loop {
        news.mark_unchanged();
        let manner = agents.manner.clone();
        let wait = agents.store.change(move |transaction| end_next(transaction, &manner)).await?;
        let Some(wait) = wait else { continue };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // We hold the sender, so it does not go.
            _ = news.changed() => {}
        }
    }
}

/// Ends the piece that is due; how long to wait if none is.
fn end_next(transaction: &Transaction<'_>, manner: &Manner) -> Result<Option<Duration>, Error> {
    let ready = format!(
        "FROM work JOIN tasks USING (task_id) LEFT JOIN stories USING (story_id)
         WHERE (piece != '{}' OR stories.state IN ({SPRINT}))",
        Piece::WAITING
    );
    let next: Option<i64> =
        transaction.query_row(&format!("SELECT min(due_ms) {ready}"), [], |row| row.get(0))?;
    let now = clock();
    match next {
        None => return Ok(Some(LOOK)),
        Some(due) if due > now => {
            let wait = Duration::from_millis(due.saturating_sub(now).unsigned_abs());
            return Ok(Some(wait.min(LOOK)));
        }
        Some(_) => {}
    }
    let read = |row: &Row<'_>| {
        Ok(Due {
            number: row.get("number")?,
            task_id: row.get("task_id")?,
            piece: row.get("piece")?,
            cause: Cause {
                correlation_id: row.get("correlation_id")?,
                causation_id: row.get("causation_id")?,
            },
        })
    };
    let query = format!(
        "SELECT work.number AS number, task_id, piece, correlation_id, causation_id {ready} AND due_ms <= ?1
         ORDER BY due_ms, work.number LIMIT 1"
    );
    let due = transaction.query_row(&query, [now], read).optional()?;
    let Some(due) = due else { return Ok(Some(LOOK)) };
    transaction.execute("DELETE FROM work WHERE number = ?1", [due.number])?;
    let task = tasks::get(transaction, &due.task_id)?;
    messages::tell(transaction, manner, &task, Piece::named(&due.piece)?, &due.cause)?;
    tracing::info!(task_id = task.task_id, "{}", due.piece);
    Ok(None)
}

/// Milliseconds since the epoch.
fn clock() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
