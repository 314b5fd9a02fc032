//! Planning's ear: `task.derivation.completed` makes the new tasks known and the story planned. How far it has heard is
//! stored in the transaction that the event caused, or acked after it; a crash in between repeats what changes nothing.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, Heard},
    events::Incoming,
    lifecycle::{self, Manner},
    store::{Error, Store, marks},
    trouble::Trouble,
};

pub(crate) const SUBJECT: &str = "task.derivation.completed";
/// The contract's back-off.
const BACKOFF: Duration = Duration::from_secs(5);
/// Before the bus is tried again; short, so that a daemon that has just come is heard from its first word.
const PAUSE: Duration = Duration::from_millis(250);

/// Runs until `shutdown`, over outages.
pub(crate) async fn run(
    store: Store,
    bus: Arc<dyn Bus>,
    manner: Manner,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut trouble = Trouble::default();
    loop {
        let listening = listen(&store, bus.as_ref(), manner, &mut trouble);
        let ended = tokio::select! {
            ended = listening => ended,
            () = shutdown.cancelled() => return Ok(()),
        };
        if let Err(error) = ended {
            let news = trouble.is_news(&error);
            let error = format!("{error:#}");
            if news {
                tracing::warn!(subject = SUBJECT, error, "not listening; trying again until it works");
            } else {
                tracing::debug!(subject = SUBJECT, error, "still not listening");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Ends only by an error.
async fn listen(store: &Store, bus: &dyn Bus, manner: Manner, trouble: &mut Trouble) -> anyhow::Result<()> {
    let after = store.read(|transaction| marks::get(transaction, SUBJECT)).await?;
    let mut ear = bus.follow(SUBJECT, after).await?;
    if trouble.is_over() {
        tracing::info!(subject = SUBJECT, "listening");
    }
    loop {
        let heard = ear.next().await?;
        match handle(store, manner, heard).await {
            Ok(()) => ear.done().await?,
            Err(reason) => {
                tracing::warn!(subject = SUBJECT, reason, "event comes again");
                ear.again(BACKOFF).await?;
            }
        }
    }
}

/// Takes an event in, or drops it for good. The error is why it has to come again.
async fn handle(store: &Store, manner: Manner, heard: Heard) -> Result<(), String> {
    let Heard { data, mark } = heard;
    let dropped = mark.clone();
    match take(store, manner, &data, mark).await {
        Ok(()) => Ok(()),
        Err(Refusal::ForNow(reason)) => Err(reason),
        Err(Refusal::ForGood(reason)) => {
            tracing::error!(subject = SUBJECT, reason, "event dropped");
            let Some(mark) = dropped else { return Ok(()) };
            let stored = store.change(move |transaction| marks::put(transaction, &mark)).await;
            stored.map_err(|error: Error| error.to_string())
        }
    }
}

/// Why an event was not taken in.
enum Refusal {
    /// It will never be.
    ForGood(String),
    /// It may be later.
    ForNow(String),
}

async fn take(
    store: &Store,
    manner: Manner,
    data: &[u8],
    mark: Option<crate::bus::Mark>,
) -> Result<(), Refusal> {
    let event = Incoming::read(data).map_err(Refusal::ForGood)?;
    let plan_id =
        event.text("plan_id").ok_or_else(|| Refusal::ForGood("it names no plan_id".to_owned()))?.to_owned();
    let id = plan_id.clone();
    let done = store
        .change(move |transaction| {
            if let Some(mark) = mark {
                marks::put(transaction, &mark)?;
            }
            lifecycle::derived(transaction, manner, &id, &event)
        })
        .await;
    match done {
        Ok(tasks) => {
            tracing::info!(plan_id, tasks, "derivation completed: announcing its new tasks");
            Ok(())
        }
        Err(error @ (Error::Unknown { .. } | Error::Exists { .. } | Error::Invalid(_))) => {
            Err(Refusal::ForGood(error.to_string()))
        }
        Err(error) => Err(Refusal::ForNow(error.to_string())),
    }
}
