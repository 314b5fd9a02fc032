//! The bus on NATS JetStream. A stream that covers a subject is used as it is; the contract's is created only where none
//! does.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap,
    datetime::DateTime,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, AckKind, Context,
        consumer::{
            AckPolicy, DeliverPolicy, PullConsumer,
            pull::{self, OrderedConfig},
        },
        context::{CreateStreamErrorKind, GetStreamByNameErrorKind, PublishErrorKind},
        stream::{Config, DiscardPolicy, RawMessageErrorKind, RetentionPolicy, StorageType, Stream},
    },
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};
use tonic::async_trait;

use super::{Bus, Ear, Heard, LOOK, Mark, Passing, Place, Watch, earliest};

/// How long the first connection may take before the operator is told.
const CONNECT: Duration = Duration::from_secs(5);

/// A server that is silent for twice as long is asked anew.
const HEARTBEAT: Duration = Duration::from_secs(2);
const PULL: Duration = Duration::from_secs(10);
/// Before the server lets go of a reader that is gone.
const FORGET: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A stream of the fleet's contract.
struct Spec {
    name: &'static str,
    subjects: &'static str,
    max_age: Duration,
    max_messages: i64,
}

const STREAMS: [Spec; 6] = [
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
    Spec {
        name: "AGENT_WORK",
        subjects: "agent.work.>",
        max_age: HOUR.saturating_mul(2),
        max_messages: 50_000,
    },
    Spec {
        name: "WORKFLOW_EVENTS",
        subjects: "workflow.>",
        max_age: DAY.saturating_mul(7),
        max_messages: 100_000,
    },
    Spec {
        name: "ORCHESTRATOR_EVENTS",
        subjects: "orchestration.>",
        max_age: DAY.saturating_mul(7),
        max_messages: 50_000,
    },
];

pub(super) struct Nats {
    client: Client,
    jetstream: Context,
    url: String,
}

impl Nats {
    /// Connects, or says what to do about it. Later losses are waited out.
    pub(super) async fn connect(url: &str, name: &str) -> anyhow::Result<Nats> {
        let who = name.to_owned();
        let client = ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT)
            .event_callback(move |event| {
                let who = who.clone();
                async move {
                    match event {
                        Event::Connected => tracing::info!(who, "connected to NATS"),
                        Event::Disconnected => {
                            tracing::warn!(who, "NATS is gone; trying again until it is back")
                        }
                        other => tracing::debug!(who, event = %other, "NATS"),
                    }
                }
            })
            .connect(url)
            .await
            .with_context(|| {
                format!(
                    "can't reach NATS at {url}; start one with `nats-server -js -sd <folder>`, or name another with \
                     --nats URL or NATS_URL"
                )
            })?;
        Ok(Nats { jetstream: jetstream::new(client.clone()), client, url: url.to_owned() })
    }

    /// The durable consumer of a subject, created if it is missing.
    async fn durable(&self, subject: &str) -> anyhow::Result<PullConsumer> {
        let durable = format!("fleet-planning-{}", subject.replace('.', "-"));
        let name = stream_for(&self.jetstream, subject).await?;
        let stream = self.jetstream.get_stream(&name).await?;
        let config = pull::Config {
            durable_name: Some(durable.clone()),
            filter_subject: subject.to_owned(),
            ack_policy: AckPolicy::Explicit,
            // Without end: deliveries that nobody answered use up a limit, and the event would be skipped silently.
            max_deliver: -1,
            ..pull::Config::default()
        };
        let consumer = stream
            .get_or_create_consumer(&durable, config)
            .await
            .with_context(|| format!("can't have the durable {durable:?} on stream {name:?}"))?;
        let found = &consumer.cached_info().config;
        if found.filter_subject != subject || found.ack_policy != AckPolicy::Explicit {
            bail!(
                "the durable {durable:?} on stream {name:?} filters {:?} with ack policy {:?}, not {subject:?} with \
                 explicit acks; delete it and start again",
                found.filter_subject,
                found.ack_policy
            );
        }
        Ok(consumer)
    }
}

#[async_trait]
impl Bus for Nats {
    async fn prepare(&self, published: &[&str], followed: &[&str]) -> anyhow::Result<()> {
        self.jetstream.query_account().await.with_context(|| {
            format!("NATS at {} has no JetStream; start it with `nats-server -js -sd <folder>`", self.url)
        })?;
        for subject in published {
            stream_for(&self.jetstream, subject).await?;
        }
        for subject in followed {
            self.durable(subject).await?;
        }
        Ok(())
    }

    async fn publish(&self, subject: &str, message_id: &str, data: &str) -> anyhow::Result<Place> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        let sent = self.jetstream.publish_with_headers(subject.to_owned(), headers, data.to_owned().into());
        match sent.await?.await {
            Ok(ack) => Ok(Place { stream: ack.stream.to_string(), sequence: ack.sequence }),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                // The stream was removed under us. The next attempt finds it.
                stream_for(&self.jetstream, subject).await?;
                Err(anyhow!(error))
            }
            Err(error) => Err(anyhow!(error)),
        }
    }

    async fn find(
        &self,
        subject: &str,
        message_id: &str,
        since: SystemTime,
    ) -> anyhow::Result<Option<Place>> {
        let name = stream_for(&self.jetstream, subject).await?;
        let stream = self.jetstream.get_stream(&name).await?;
        let window = stream.cached_info().config.duplicate_window;
        let age = SystemTime::now().duration_since(since).unwrap_or_default();
        // Half of it, so that an id that is known when we decide is still known when the message arrives.
        if age < window / 2 {
            return Ok(None);
        }
        let nanos = earliest(since).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let start_time =
            async_nats::datetime::from_nanos(i128::try_from(nanos)?).map_err(|error| anyhow!(error))?;
        let consumer = stream
            .create_consumer(OrderedConfig {
                filter_subject: subject.to_owned(),
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
                if id.is_some_and(|id| id.as_str() == message_id) {
                    let info = message.info().map_err(|error| anyhow!(error))?;
                    return Ok::<_, anyhow::Error>(Some(info.stream_sequence));
                }
            }
            Ok(None)
        };
        let found = tokio::time::timeout(LOOK, search);
        let found = found.await.context("the stream did not show its messages in time")??;
        Ok(found.map(|sequence| Place { stream: name, sequence }))
    }

    /// The durable keeps count.
    async fn follow(&self, subject: &str, _: Option<Mark>) -> anyhow::Result<Box<dyn Ear>> {
        let messages = self.durable(subject).await?.messages().await?;
        Ok(Box::new(Durable { messages, last: None }))
    }

    async fn read_on(&self, subject: &str, after: Option<Mark>) -> anyhow::Result<Box<dyn Ear>> {
        let name = stream_for(&self.jetstream, subject).await?;
        let stream = self.jetstream.get_stream(&name).await?;
        let deliver_policy = match after {
            Some(mark) if mark.place.stream == name && is_marked(&stream, &mark).await? => {
                DeliverPolicy::ByStartSequence { start_sequence: mark.place.sequence + 1 }
            }
            Some(mark) => {
                tracing::info!(
                    subject,
                    stream = mark.place.stream,
                    sequence = mark.place.sequence,
                    "what was heard last is not there any more: hearing all there is"
                );
                DeliverPolicy::All
            }
            None => DeliverPolicy::All,
        };
        let config = pull::Config {
            filter_subject: subject.to_owned(),
            deliver_policy,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            inactive_threshold: FORGET,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let messages = consumer.stream().heartbeat(HEARTBEAT).expires(PULL).messages().await?;
        let subject = subject.to_owned();
        Ok(Box::new(Reading { messages, subject, stream: name, heard: 0, last: None, due: false }))
    }

    async fn watch(&self, subjects: &[String]) -> anyhow::Result<Watch> {
        let mut subscriptions = Vec::new();
        for subject in subjects {
            subscriptions.push(self.client.subscribe(subject.clone()).await?);
        }
        self.client.flush().await?;
        let messages = stream::select_all(subscriptions)
            .filter_map(async |message| (!is_delivery(&message)).then(|| Ok(passing(&message))));
        Ok(messages.boxed())
    }
}

/// A durable's messages.
struct Durable {
    messages: pull::Stream,
    last: Option<jetstream::Message>,
}

impl Durable {
    async fn settle(&mut self, kind: AckKind) -> anyhow::Result<()> {
        let Some(message) = self.last.take() else { return Ok(()) };
        message.ack_with(kind).await.map_err(|error| anyhow!(error))
    }
}

#[async_trait]
impl Ear for Durable {
    async fn next(&mut self) -> anyhow::Result<Heard> {
        let message = self.messages.next().await.context("the subscription ended")??;
        let data = message.payload.to_vec();
        self.last = Some(message);
        Ok(Heard { data, mark: None })
    }

    async fn done(&mut self) -> anyhow::Result<()> {
        self.settle(AckKind::Ack).await
    }

    async fn again(&mut self, delay: Duration) -> anyhow::Result<()> {
        self.settle(AckKind::Nak(Some(delay))).await
    }
}

/// A subject's messages from a place on; who reads keeps count.
struct Reading {
    messages: pull::Stream,
    subject: String,
    stream: String,
    /// How many messages.
    heard: u64,
    last: Option<Heard>,
    /// `last` is to be heard once more.
    due: bool,
}

#[async_trait]
impl Ear for Reading {
    async fn next(&mut self) -> anyhow::Result<Heard> {
        if let Some(heard) = self.last.clone().filter(|_| self.due) {
            self.due = false;
            return Ok(heard);
        }
        let message = self.messages.next().await.context("the subscription ended")??;
        let info = message.info().map_err(|error| anyhow!(error))?;
        if info.consumer_sequence != self.heard + 1 {
            bail!("messages were lost on their way here");
        }
        self.heard += 1;
        let place = Place { stream: self.stream.clone(), sequence: info.stream_sequence };
        let stored_at = nanos(info.published);
        let mark = Mark { subject: self.subject.clone(), place, stored_at };
        let heard = Heard { data: message.payload.to_vec(), mark: Some(mark) };
        self.last = Some(heard.clone());
        Ok(heard)
    }

    /// The mark says so.
    async fn done(&mut self) -> anyhow::Result<()> {
        self.last = None;
        Ok(())
    }

    async fn again(&mut self, delay: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(delay).await;
        self.due = true;
        Ok(())
    }
}

/// Whether the message that was marked is still where it was.
async fn is_marked(stream: &Stream, mark: &Mark) -> anyhow::Result<bool> {
    match stream.get_raw_message(mark.place.sequence).await {
        Ok(message) => Ok(nanos(message.time) == mark.stored_at && *message.subject == *mark.subject),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
        Err(error) => Err(anyhow!(error)),
    }
}

/// Since the epoch.
fn nanos(time: DateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// A copy on its way to a consumer: wildcards catch these as well, once per delivery.
fn is_delivery(message: &async_nats::Message) -> bool {
    message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."))
}

fn passing(message: &async_nats::Message) -> Passing {
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let headers: Map<String, Value> = headers
        .filter_map(|(name, values)| Some((name.to_string(), json!(values.last()?.as_str()))))
        .collect();
    Passing { subject: message.subject.to_string(), headers, data: message.payload.to_vec() }
}

/// The name of the stream that stores `subject`. Created as the contract has it if there is none.
async fn stream_for(jetstream: &Context, subject: &str) -> anyhow::Result<String> {
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
