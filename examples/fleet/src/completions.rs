//! Planning's ear: `task.derivation.completed` makes the new tasks known and the story planned. Each event is acked
//! after the transaction that it caused, so a crash between the two repeats what changes nothing.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{AckPolicy, pull},
};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    events::{Incoming, Style},
    lifecycle, nats,
    store::{Error, Store},
};

const SUBJECT: &str = "task.derivation.completed";
const DURABLE: &str = "fleet-planning-task-derivation-completed";
/// The contract's back-off.
const BACKOFF: Duration = Duration::from_secs(5);
/// Before the durable is looked for again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until `shutdown`, over outages.
pub(crate) async fn run(
    store: Store,
    jetstream: Context,
    envelope: Style,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let listening = listen(&store, &jetstream, envelope);
        let error = tokio::select! {
            error = listening => error.err(),
            () = shutdown.cancelled() => return Ok(()),
        };
        let error = error.map_or_else(|| "the subscription ended".to_owned(), |error| format!("{error:#}"));
        tracing::warn!(subject = SUBJECT, error, "not listening; trying again");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn listen(store: &Store, jetstream: &Context, envelope: Style) -> anyhow::Result<()> {
    let mut messages = durable(jetstream).await?.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        settle(&message, handle(store, envelope, &message).await).await?;
    }
    Ok(())
}

/// The durable consumer, created if it is missing.
pub(crate) async fn durable(
    jetstream: &Context,
) -> anyhow::Result<async_nats::jetstream::consumer::PullConsumer> {
    let name = nats::stream_for(jetstream, SUBJECT).await?;
    let stream = jetstream.get_stream(&name).await?;
    let config = pull::Config {
        durable_name: Some(DURABLE.to_owned()),
        filter_subject: SUBJECT.to_owned(),
        ack_policy: AckPolicy::Explicit,
        // Without end: deliveries that nobody answered use up a limit, and the event would be skipped silently.
        max_deliver: -1,
        ..pull::Config::default()
    };
    let consumer = stream
        .get_or_create_consumer(DURABLE, config)
        .await
        .with_context(|| format!("can't have the durable {DURABLE:?} on stream {name:?}"))?;
    let found = &consumer.cached_info().config;
    if found.filter_subject != SUBJECT || found.ack_policy != AckPolicy::Explicit {
        bail!(
            "the durable {DURABLE:?} on stream {name:?} filters {:?} with ack policy {:?}, not {SUBJECT:?} with explicit \
             acks; delete it and start again",
            found.filter_subject,
            found.ack_policy
        );
    }
    Ok(consumer)
}

/// Why an event was not taken up.
enum Refusal {
    /// It will never be.
    ForGood(String),
    /// It may be later.
    ForNow(String),
}

async fn handle(store: &Store, envelope: Style, message: &Message) -> Result<(), Refusal> {
    let event = Incoming::read(&message.payload).map_err(Refusal::ForGood)?;
    let plan_id =
        event.text("plan_id").ok_or_else(|| Refusal::ForGood("it names no plan_id".to_owned()))?.to_owned();
    let id = plan_id.clone();
    match store.change(move |transaction| lifecycle::derived(transaction, envelope, &id, &event)).await {
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

/// The only place that acks.
async fn settle(message: &Message, outcome: Result<(), Refusal>) -> anyhow::Result<()> {
    let kind = match outcome {
        Ok(()) => AckKind::Ack,
        Err(Refusal::ForGood(reason)) => {
            tracing::error!(subject = SUBJECT, reason, "event dropped");
            AckKind::Ack
        }
        Err(Refusal::ForNow(reason)) => {
            tracing::warn!(subject = SUBJECT, reason, "event comes again");
            AckKind::Nak(Some(BACKOFF))
        }
    };
    message.ack_with(kind).await.map_err(|error| anyhow!(error))
}
