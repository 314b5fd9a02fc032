//! Sends what Planning owes to the bus: in order, each event until it is confirmed, none twice. Message ids catch
//! repeats within the stream's duplicate window; after a longer outage the stream itself is asked.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, Place},
    store::{
        Store,
        outbox::{self, Owed},
    },
    trouble::Trouble,
};

/// Events read from the database at a time.
const BATCH: u32 = 64;
/// Between attempts while the bus is out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until `shutdown`. What is still owed then is sent after the next start.
pub(crate) async fn run(store: Store, bus: Arc<dyn Bus>, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        let owed = store.read(|transaction| outbox::owed(transaction, BATCH)).await?;
        if owed.is_empty() {
            tokio::select! {
                () = store.outbox().notified() => continue,
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        for event in owed {
            tokio::select! {
                sent = until_stored(&store, bus.as_ref(), event) => sent?,
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

/// Fails only if the database does.
async fn until_stored(store: &Store, bus: &dyn Bus, event: Owed) -> anyhow::Result<()> {
    let number = event.number;
    let mut first_sent_at = event.first_sent_at.clone();
    if first_sent_at.is_none() {
        store.change(move |transaction| outbox::sending(transaction, number)).await?;
    }
    let mut trouble = Trouble::default();
    loop {
        match send(bus, &event, first_sent_at.as_deref()).await {
            Ok(place) => {
                tracing::info!(
                    subject = event.subject,
                    stream = place.stream,
                    sequence = place.sequence,
                    "published"
                );
                store.change(move |transaction| outbox::stored(transaction, number, &place)).await?;
                return Ok(());
            }
            Err(error) => {
                if trouble.is_news(&error) {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        subject = event.subject,
                        error,
                        "not published yet; trying again until it is"
                    );
                }
                first_sent_at.get_or_insert_with(crate::store::now);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One attempt: where the event is stored now.
async fn send(bus: &dyn Bus, event: &Owed, first_sent_at: Option<&str>) -> anyhow::Result<Place> {
    if let Some(first_sent_at) = first_sent_at {
        let since = humantime::parse_rfc3339(first_sent_at).context("an unreadable time in the outbox")?;
        if let Some(place) = bus.find(&event.subject, &event.message_id, since).await? {
            return Ok(place);
        }
    }
    bus.publish(&event.subject, &event.message_id, &event.data).await
}
