//! Sends what Planning owes to NATS: in order, each event until it is confirmed, none twice. Message ids catch
//! repeats within the stream's duplicate window; after a longer outage the stream itself is asked.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{Context, consumer::DeliverPolicy, consumer::pull::OrderedConfig, context::PublishErrorKind},
};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    nats,
    store::{
        Store,
        outbox::{self, Owed},
    },
};

/// Events read from the database at a time.
const BATCH: u32 = 64;
/// Between attempts while NATS is out of reach.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the stream may take to show what it holds.
const LOOK: Duration = Duration::from_secs(10);
/// The clocks of this machine and of NATS may differ by this much.
const SKEW: Duration = Duration::from_secs(60);

/// Runs until `shutdown`. What is still owed then is sent after the next start.
pub(crate) async fn run(store: Store, jetstream: Context, shutdown: CancellationToken) -> anyhow::Result<()> {
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
                sent = until_stored(&store, &jetstream, event) => sent?,
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

/// Fails only if the database does.
async fn until_stored(store: &Store, jetstream: &Context, event: Owed) -> anyhow::Result<()> {
    let number = event.number;
    let mut first_sent_at = event.first_sent_at.clone();
    if first_sent_at.is_none() {
        store.change(move |transaction| outbox::sending(transaction, number)).await?;
    }
    loop {
        match send(jetstream, &event, first_sent_at.as_deref()).await {
            Ok((stream, sequence)) => {
                tracing::info!(subject = event.subject, stream, sequence, "published");
                store
                    .change(move |transaction| outbox::stored(transaction, number, &stream, sequence))
                    .await?;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(
                    subject = event.subject,
                    error = format!("{error:#}"),
                    "not published yet; trying again"
                );
                first_sent_at.get_or_insert_with(crate::store::now);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One attempt: the stream and sequence where the event is stored now.
async fn send(
    jetstream: &Context,
    event: &Owed,
    first_sent_at: Option<&str>,
) -> anyhow::Result<(String, u64)> {
    if let Some(first_sent_at) = first_sent_at {
        let stream = nats::stream_for(jetstream, &event.subject).await?;
        if let Some(sequence) = look(jetstream, &stream, event, first_sent_at).await? {
            return Ok((stream, sequence));
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, event.message_id.as_str());
    let ack = jetstream
        .publish_with_headers(event.subject.clone(), headers, event.data.clone().into())
        .await?
        .await;
    match ack {
        Ok(ack) => Ok((ack.stream.to_string(), ack.sequence)),
        Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
            // The stream was removed under us. The next attempt finds it.
            nats::stream_for(jetstream, &event.subject).await?;
            Err(anyhow!(error))
        }
        Err(error) => Err(anyhow!(error)),
    }
}

/// Whether an earlier attempt arrived. Asked only where the message id may have been forgotten.
async fn look(
    jetstream: &Context,
    stream: &str,
    event: &Owed,
    first_sent_at: &str,
) -> anyhow::Result<Option<u64>> {
    let since = humantime::parse_rfc3339(first_sent_at).context("an unreadable time in the outbox")?;
    let stream = jetstream.get_stream(stream).await?;
    let window = stream.cached_info().config.duplicate_window;
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    // Half of it, so that an id that is known when we decide is still known when the message arrives.
    if age < window / 2 {
        return Ok(None);
    }
    let start = since.checked_sub(SKEW).unwrap_or(SystemTime::UNIX_EPOCH);
    let nanos = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let start_time =
        async_nats::datetime::from_nanos(i128::try_from(nanos)?).map_err(|error| anyhow!(error))?;
    let consumer = stream
        .create_consumer(OrderedConfig {
            filter_subject: event.subject.clone(),
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            headers_only: true,
            ..OrderedConfig::default()
        })
        .await?;
    let pending = usize::try_from(consumer.cached_info().num_pending)?;
    let mut messages = consumer.messages().await?.take(pending);
    let search = async {
        while let Some(message) = messages.next().await {
            let message = message?;
            let id = message.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
            if id.is_some_and(|id| id.as_str() == event.message_id) {
                let info = message.info().map_err(|error| anyhow!(error))?;
                return Ok::<_, anyhow::Error>(Some(info.stream_sequence));
            }
        }
        Ok(None)
    };
    tokio::time::timeout(LOOK, search).await.context("the stream did not show its messages in time")?
}
