//! How they hear: each subject from where they were, each event once. How far they have heard is stored in the transaction of what
//! the event leads to.

use std::time::Duration;

use futures_util::future::join_all;
use rusqlite::Transaction;
use sha2::{Digest as _, Sha256};

use super::{Agents, Cause, Refusal, developer, owner, reviewers, tasks, work};
use crate::{
    bus::Heard,
    events::Incoming,
    store::{Error, marks, new_id, now},
    trouble::Trouble,
};

const ASSIGNED: &str = "workflow.task.assigned";
const DISPATCHED: &str = "orchestration.task.dispatched";
const STORY_CREATED: &str = "planning.story.created";
const STORY_MOVED: &str = "planning.story.transitioned";

pub(super) const SUBJECTS: [&str; 4] = [ASSIGNED, DISPATCHED, STORY_CREATED, STORY_MOVED];

/// Before the bus, or a database that is busy, is tried again; short, so that a daemon that has just come is heard soon.
const PAUSE: Duration = Duration::from_millis(250);

/// For ever, over outages.
pub(super) async fn run(agents: &Agents) -> anyhow::Result<()> {
    join_all(SUBJECTS.map(|subject| hear(agents, subject))).await;
    Ok(())
}

async fn hear(agents: &Agents, subject: &'static str) {
    let mut trouble = Trouble::default();
    loop {
        let Err(error) = listen(agents, subject, &mut trouble).await;
        let news = trouble.is_news(&error);
        let error = format!("{error:#}");
        if news {
            tracing::warn!(subject, error, "not listening; trying again until it works");
        } else {
            tracing::debug!(subject, error, "still not listening");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(
    agents: &Agents,
    subject: &'static str,
    trouble: &mut Trouble,
) -> anyhow::Result<std::convert::Infallible> {
    let after = agents.store.read(|transaction| marks::get(transaction, subject)).await?;
    let mut ear = agents.bus.read_on(subject, after).await?;
    if trouble.is_over() {
        tracing::info!(subject, "listening");
    }
    loop {
        let heard = ear.next().await?;
        // What can't be stored now is heard again from the mark.
        take(agents, subject, heard).await?;
        ear.done().await?;
        agents.tell();
    }
}

/// Takes an event in, or drops it for good.
async fn take(agents: &Agents, subject: &'static str, heard: Heard) -> Result<(), Error> {
    let Heard { data, mark } = heard;
    let (manner, dropped) = (agents.manner.clone(), mark.clone());
    let taken = agents
        .store
        .change(move |transaction| {
            if let Some(mark) = mark {
                marks::put(transaction, &mark)?;
            }
            if !is_new(transaction, subject, &data)? {
                tracing::info!(subject, "an event came again");
                return Ok(());
            }
            let event = Incoming::read(&data).map_err(Refusal::ForGood)?;
            let cause = Cause {
                correlation_id: match &event.correlation_id {
                    Some(id) => id.clone(),
                    None => new_id(transaction, "agents")?,
                },
                causation_id: event.idempotency_key.clone(),
            };
            match subject {
                STORY_CREATED => owner::story_created(transaction, &event),
                STORY_MOVED => owner::story_moved(transaction, &event),
                DISPATCHED => developer::dispatched(transaction, &manner, &event, &cause),
                _ => assigned(transaction, &manner, &event, &cause),
            }
        })
        .await;
    match taken {
        Ok(()) => Ok(()),
        Err(Refusal::ForNow(error)) => Err(error),
        Err(Refusal::ForGood(reason)) => {
            tracing::error!(subject, reason, "event dropped");
            let Some(mark) = dropped else { return Ok(()) };
            agents.store.change(move |transaction| marks::put(transaction, &mark)).await
        }
    }
}

/// The same message is the same event, wherever it is stored.
fn is_new(transaction: &Transaction<'_>, subject: &str, data: &[u8]) -> Result<bool, Error> {
    let digest = Sha256::new().chain_update(subject).chain_update([0]).chain_update(data).finalize();
    let stored = transaction.execute(
        "INSERT INTO heard (digest, heard_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        (digest.as_slice(), now()),
    )?;
    Ok(stored == 1)
}

/// `workflow.task.assigned`: who is asked for what, by the label, else by the action.
fn assigned(
    transaction: &Transaction<'_>,
    manner: &super::Manner,
    event: &Incoming,
    cause: &Cause,
) -> Result<(), Refusal> {
    let task = tasks::of(transaction, event)?;
    // It is where it says; what was asked for before is not any more.
    tasks::set_assigned(transaction, &task, false)?;
    work::stop(transaction, &task)?;
    let label = ["required_action", "action", "action_required"].iter().find_map(|name| event.text(name));
    match label.unwrap_or_default().to_ascii_uppercase().as_str() {
        "IMPLEMENT_FEATURE" | "COMMIT_CODE" => developer::assigned(transaction, manner, &task, cause),
        "REVISE_CODE" => developer::sent_back(transaction, manner, &task, cause),
        "REVIEW_DESIGN" | "APPROVE_DESIGN" => reviewers::design(transaction, manner, &task, cause),
        "RUN_TESTS" | "APPROVE_TESTS" => reviewers::tests(transaction, manner, &task, cause),
        "APPROVE_STORY" => owner::asked(transaction, manner, &task, cause),
        other => {
            Err(Refusal::ForGood(format!("task {task:?} is assigned for {other:?}, which none of us does")))
        }
    }
}
