//! The connection to NATS, and the streams that the stand-ins need. A stream that covers a subject is used as it is;
//! the contract's is created only where none does.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{
    ConnectOptions, Event,
    jetstream::{
        self, Context,
        context::{CreateStreamErrorKind, GetStreamByNameErrorKind},
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};

/// How long the first connection may take before the operator is told.
const CONNECT: Duration = Duration::from_secs(5);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A stream of the fleet's contract.
struct Spec {
    name: &'static str,
    subjects: &'static str,
    max_age: Duration,
    max_messages: i64,
}

const STREAMS: [Spec; 3] = [
    Spec {
        name: "PLANNING_EVENTS",
        subjects: "planning.>",
        max_age: DAY.saturating_mul(30),
        max_messages: 1_000_000,
    },
    Spec {
        name: "task_derivation",
        subjects: "task.derivation.>",
        max_age: DAY.saturating_mul(7),
        max_messages: 100_000,
    },
    Spec { name: "AGENT_RESPONSES", subjects: "agent.response.>", max_age: HOUR, max_messages: 10_000 },
];

/// Connects, or says what to do about it. Later losses are waited out.
pub(crate) async fn connect(url: &str, name: &str) -> anyhow::Result<async_nats::Client> {
    let who = name.to_owned();
    ConnectOptions::new()
        .name(name)
        .connection_timeout(CONNECT)
        .event_callback(move |event| {
            let who = who.clone();
            async move {
                match event {
                    Event::Connected => tracing::info!(who, "connected to NATS"),
                    Event::Disconnected => tracing::warn!(who, "NATS is gone; trying again until it is back"),
                    other => tracing::debug!(who, event = %other, "NATS"),
                }
            }
        })
        .connect(url)
        .await
        .with_context(|| {
            format!(
                "can't reach NATS at {url}; start one with `nats-server -js -sd <folder>`, or name another with --nats \
                 URL or NATS_URL"
            )
        })
}

/// A JetStream context on the connection; an error if the server has none.
pub(crate) async fn jetstream(client: async_nats::Client, url: &str) -> anyhow::Result<Context> {
    let jetstream = jetstream::new(client);
    jetstream.query_account().await.with_context(|| {
        format!("NATS at {url} has no JetStream; start it with `nats-server -js -sd <folder>`")
    })?;
    Ok(jetstream)
}

/// The name of the stream that stores `subject`. Created as the contract has it if there is none.
pub(crate) async fn stream_for(jetstream: &Context, subject: &str) -> anyhow::Result<String> {
    if let Some(name) = covering(jetstream, subject).await? {
        return Ok(name);
    }
    let Some(spec) = STREAMS
        .iter()
        .find(|spec| spec.subjects.strip_suffix('>').is_some_and(|prefix| subject.starts_with(prefix)))
    else {
        bail!("no stream stores the subject {subject:?}, and the contract names none for it");
    };
    let config = Config {
        name: spec.name.to_owned(),
        subjects: vec![spec.subjects.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        num_replicas: 1,
        max_age: spec.max_age,
        max_messages: spec.max_messages,
        ..Config::default()
    };
    match jetstream.create_stream(config).await {
        Ok(_) => {
            tracing::info!(
                stream = spec.name,
                subjects = spec.subjects,
                "created the stream: none covered the subject"
            );
            Ok(spec.name.to_owned())
        }
        Err(error) => {
            // Another process may have been faster, perhaps under another name.
            if let Ok(Some(name)) = covering(jetstream, subject).await {
                return Ok(name);
            }
            let hint = match error.kind() {
                CreateStreamErrorKind::JetStream(_) => {
                    "; a stream that covers a part of these subjects, or has this name for other subjects, is in the \
                     way: extend it to the subject, or remove it"
                }
                _ => "",
            };
            Err(anyhow::Error::new(error).context(format!(
                "no stream stores {subject:?}, and {} on {} could not be created{hint}",
                spec.name, spec.subjects
            )))
        }
    }
}

async fn covering(jetstream: &Context, subject: &str) -> anyhow::Result<Option<String>> {
    match jetstream.stream_by_subject(subject).await {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't ask NATS which stream stores {subject:?}")),
    }
}
