//! The product owner, who brings stories into planning and into the sprint, and approves what is built. That waits for the sprint:
//! a story whose tasks are all over before it would not be moved on by that.

use rusqlite::Transaction;

use super::{Cause, Manner, Refusal, moves, pieces::Piece, work};
use crate::events::Incoming;

/// `planning.story.created`.
pub(super) fn story_created(transaction: &Transaction<'_>, event: &Incoming) -> Result<(), Refusal> {
    let story_id = story(event)?;
    moves::put(transaction, story_id, "DRAFT", "PO_REVIEW")?;
    moves::put(transaction, story_id, "PO_REVIEW", "READY_FOR_PLANNING")?;
    tracing::info!(story_id, "a story: reviewing it, and then it is ready for planning");
    Ok(())
}

/// `planning.story.transitioned`, by whichever keys.
pub(super) fn story_moved(transaction: &Transaction<'_>, event: &Incoming) -> Result<(), Refusal> {
    let story_id = story(event)?;
    let state = ["to_state", "to_phase", "to"].iter().find_map(|name| event.text(name));
    let state = state.ok_or_else(|| Refusal::ForGood("it names no to_state".to_owned()))?;
    let state = state.to_ascii_uppercase();
    transaction.execute(
        "INSERT INTO stories (story_id, state) VALUES (?1, ?2)
         ON CONFLICT (story_id) DO UPDATE SET state = excluded.state",
        (story_id, &state),
    )?;
    if state == "PLANNED" {
        moves::put(transaction, story_id, "PLANNED", "READY_FOR_EXECUTION")?;
        tracing::info!(story_id, "planned: bringing it into the sprint");
    }
    Ok(())
}

/// To approve a task.
pub(super) fn asked(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    Ok(work::begin(transaction, manner, task_id, Piece::ApproveStory, cause)?)
}

fn story(event: &Incoming) -> Result<&str, Refusal> {
    event.text("story_id").ok_or_else(|| Refusal::ForGood("it names no story_id".to_owned()))
}
