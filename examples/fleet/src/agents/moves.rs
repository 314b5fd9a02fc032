//! The product owner's moves: steps of stories, by gRPC at whoever keeps stories. Each is made once: a step is asked for only where the
//! story stands before it, under a key of its own, and what was made is noted.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Row, Transaction};
use tonic::{Code, Status};

use super::{Agents, stories::Stories};
use crate::{
    store::{Error, now},
    trouble::Trouble,
};

/// Before a step that can't be made yet is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// A story's way, as far as anybody here moves it.
const ROAD: [&str; 11] = [
    "DRAFT",
    "PO_REVIEW",
    "READY_FOR_PLANNING",
    "PLANNED",
    "READY_FOR_EXECUTION",
    "IN_PROGRESS",
    "CODE_REVIEW",
    "TESTING",
    "READY_TO_REVIEW",
    "ACCEPTED",
    "DONE",
];

/// A step that is still to be made.
struct Move {
    number: i64,
    story_id: String,
    from: String,
    to: String,
    key: String,
}

/// What became of one.
enum Outcome {
    Made,
    /// Somebody else made it, or more.
    Past,
    /// The story is not there yet.
    NotYet(String),
    /// The answer says no, and stays with its key.
    Refused(String),
}

/// To be made once; a story that comes to the same place twice is somebody else's to move then.
pub(super) fn put(transaction: &Transaction<'_>, story_id: &str, from: &str, to: &str) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO moves (story_id, from_state, to_state) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        (story_id, from, to),
    )?;
    Ok(())
}

fn due(transaction: &Transaction<'_>) -> Result<Vec<Move>, Error> {
    let mut query = transaction.prepare_cached(
        "SELECT *, (SELECT id FROM identity) || '.' || number || '.' || refusals AS key FROM moves
         WHERE done_at IS NULL ORDER BY number",
    )?;
    let rows = query.query_map([], |row: &Row<'_>| {
        Ok(Move {
            number: row.get("number")?,
            story_id: row.get("story_id")?,
            from: row.get("from_state")?,
            to: row.get("to_state")?,
            key: row.get("key")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes what is to be made, for ever. Fails only if the database does.
pub(super) async fn run(agents: &Agents) -> anyhow::Result<()> {
    let mut news = agents.news();
    let mut trouble = Trouble::default();
    loop {
        news.mark_unchanged();
        let moves = agents.store.read(due).await?;
        if moves.is_empty() {
            // We hold the sender, so it does not go.
            news.changed().await?;
            continue;
        }
        // One that stays where it is holds its story's later ones back, and no other story.
        let mut waiting = BTreeSet::new();
        for step in moves {
            if waiting.contains(&step.story_id) {
                continue;
            }
            let made = make(agents, &step).await?;
            match made {
                Ok(()) if trouble.is_over() => tracing::info!("stories can be moved again"),
                Ok(()) => {}
                Err(reason) => {
                    if trouble.is_news(&reason) {
                        let reason = format!("{reason:#}");
                        tracing::warn!(
                            story_id = step.story_id,
                            to = step.to,
                            reason,
                            "not moved yet; trying again until it is"
                        );
                    }
                    waiting.insert(step.story_id);
                }
            }
        }
        if !waiting.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One attempt. The inner error is why the story is not moved yet.
async fn make(agents: &Agents, step: &Move) -> Result<anyhow::Result<()>, Error> {
    let number = step.number;
    let (outcome, told) = match attempt(&agents.stories, step).await {
        Ok(outcome) => (outcome, None),
        Err(status) if is_kept(status.code()) => {
            (Outcome::Refused(status.message().to_owned()), Some(status.code()))
        }
        Err(status) => {
            return Ok(Err(anyhow::anyhow!("{}", status.message()).context(format!(
                "whoever keeps stories does not answer ({:?}; --stories)",
                status.code()
            ))));
        }
    };
    match outcome {
        Outcome::NotYet(why) => return Ok(Err(anyhow::anyhow!(why))),
        Outcome::Refused(why) => {
            agents
                .store
                .change(move |transaction| {
                    transaction
                        .execute("UPDATE moves SET refusals = refusals + 1 WHERE number = ?1", [number])
                        .map_err(Error::from)
                })
                .await?;
            let code = told.map_or_else(String::new, |code| format!(" ({code:?})"));
            return Ok(Err(anyhow::anyhow!("{} was refused{code}: {why}", step.to)));
        }
        Outcome::Made => tracing::info!(story_id = step.story_id, "{} -> {}", step.from, step.to),
        Outcome::Past => tracing::info!(story_id = step.story_id, "past {} already", step.from),
    }
    agents
        .store
        .change(move |transaction| {
            transaction
                .execute("UPDATE moves SET done_at = ?2 WHERE number = ?1", (number, now()))
                .map_err(Error::from)
        })
        .await?;
    Ok(Ok(()))
}

async fn attempt(stories: &Stories, step: &Move) -> Result<Outcome, Status> {
    let state = match stories.state(&step.story_id).await {
        Ok(state) => state,
        // Nobody has told them yet.
        Err(status) if status.code() == Code::NotFound => {
            return Ok(Outcome::NotYet(format!("nobody knows of story {:?} yet", step.story_id)));
        }
        Err(status) => return Err(status),
    };
    let place = |wanted: &str| ROAD.iter().position(|state| *state == wanted);
    if state == step.from {
        return Ok(stories
            .step(&step.story_id, &step.to, &step.key)
            .await?
            .map_or_else(Outcome::Refused, |()| Outcome::Made));
    }
    let past = place(&state).zip(place(&step.to)).is_some_and(|(at, to)| at >= to);
    Ok(if past {
        Outcome::Past
    } else {
        Outcome::NotYet(format!("story {:?} is in {state}, not in {}", step.story_id, step.from))
    })
}

/// Whether the same key would get the same answer again.
fn is_kept(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}
