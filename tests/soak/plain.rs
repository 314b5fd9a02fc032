//! The streams as any client of the bus has them: async-nats, or the way in on the daemon's admin port. No code of the
//! bus under test.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{
    HeaderMap, ServerAddr,
    jetstream::{self, consumer, context::GetStreamByNameErrorKind, stream},
};
use bytes::Bytes;
use fleet_proto::bus::v1::{
    Message, PublishRequest, ReadRequest, bus_service_client::BusServiceClient, read_request::Start,
};
use futures_util::StreamExt as _;

/// Streams of the workload: name, subjects, and who writes there.
const STREAMS: [(&str, &str, Writer); 3] = [
    ("PLANNING_EVENTS", "planning.>", Writer::Soak),
    ("COFFERDAM_EVENTS", "cofferdam.>", Writer::Guest),
    ("AGENT_RESPONSES", "agent.response.>", Writer::Executor),
];
/// Of a stream that is not to forget ids while anybody may send again.
const LONG_WINDOW: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Soak,
    Guest,
    /// All its answers are on one subject: with a short window each job that comes again would have a walk through all answers
    /// since. The soak of jobs has one.
    Executor,
}

/// Of one request; then it is made again.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there are two of it")]
pub(crate) enum Plain {
    Nats {
        client: async_nats::Client,
        jetstream: jetstream::Context,
    },
    /// By the daemon's admin address.
    Local {
        admin: String,
    },
}

/// A stored message.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    /// When, in nanoseconds since the epoch.
    pub(crate) at: u64,
    pub(crate) subject: String,
    pub(crate) data: Bytes,
    headers: Vec<(String, String)>,
}

impl Stored {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Plain {
    /// A client of a NATS server, where it makes the streams of the workload. `window`: how long the one that the guest
    /// publishes to remembers message ids. Each node of the cluster keeps each stream.
    pub(crate) async fn on_nats(urls: &[String], window: Duration) -> Plain {
        let options = async_nats::ConnectOptions::new().subscription_capacity(1 << 20);
        let client = options.connect(addresses(urls)).await.expect("the server just started");
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        for (name, subjects, writer) in STREAMS {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects.to_owned()],
                num_replicas: urls.len(),
                duplicate_window: if writer == Writer::Guest { window } else { LONG_WINDOW },
                ..Default::default()
            };
            jetstream.create_stream(config).await.unwrap_or_else(|e| panic!("stream {name}: {e}"));
        }
        Plain::Nats { client, jetstream }
    }

    pub(crate) fn on_local(admin: &str) -> Plain {
        Plain::Local { admin: admin.to_owned() }
    }

    /// One try.
    pub(crate) async fn publish(&self, subject: &str, id: &str, data: &str) -> anyhow::Result<()> {
        match self {
            Plain::Nats { jetstream, .. } => {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", id);
                let sent =
                    jetstream.publish_with_headers(subject.to_owned(), headers, data.to_owned().into());
                tokio::time::timeout(PATIENCE, sent.await?).await??;
            }
            Plain::Local { admin } => {
                let mut bus = BusServiceClient::connect(format!("http://{admin}")).await?;
                let message = Message {
                    subject: subject.to_owned(),
                    data: Bytes::copy_from_slice(data.as_bytes()),
                    ..Default::default()
                };
                let request = PublishRequest {
                    message: Some(message),
                    message_id: id.to_owned(),
                    ..PublishRequest::default()
                };
                tokio::time::timeout(PATIENCE, bus.publish(request)).await??;
            }
        }
        Ok(())
    }

    /// What is stored under `subject`, in the one stream that has it, from this sequence on, oldest first.
    pub(crate) async fn read(&self, subject: &str, from: u64) -> anyhow::Result<Vec<Stored>> {
        match self {
            Plain::Nats { jetstream, .. } => read_nats(jetstream, subject, from).await,
            Plain::Local { admin } => {
                let mut bus = BusServiceClient::connect(format!("http://{admin}")).await?;
                let request = ReadRequest {
                    subject: subject.to_owned(),
                    start: Some(Start::Sequence(from)),
                    ..ReadRequest::default()
                };
                let mut messages = bus.read(request).await?.into_inner();
                let mut all = Vec::new();
                while let Some(stored) = tokio::time::timeout(PATIENCE, messages.message()).await?? {
                    let message = stored.message.context("a message")?;
                    let at = stored.stored_at.context("a time")?;
                    all.push(Stored {
                        sequence: stored.sequence,
                        at: u64::try_from(at.seconds)? * 1_000_000_000 + u64::try_from(at.nanos)?,
                        subject: message.subject,
                        data: message.data,
                        headers: message.headers.into_iter().map(|it| (it.name, it.value)).collect(),
                    });
                }
                Ok(all)
            }
        }
    }

    /// On NATS: how many deliveries are owed or not acked, over all durables.
    pub(crate) async fn unsettled(&self) -> anyhow::Result<u64> {
        let Plain::Nats { jetstream, .. } = self else { return Ok(0) };
        let mut all = 0;
        for stream in ["PLANNING_EVENTS", "COFFERDAM"] {
            let stream = jetstream.get_stream(stream).await?;
            let mut consumers = stream.consumers();
            while let Some(consumer) = consumers.next().await {
                let consumer = consumer?;
                if consumer.config.durable_name.is_some() {
                    all += consumer.num_pending + consumer.num_ack_pending as u64;
                }
            }
        }
        Ok(all)
    }
}

fn addresses(urls: &[String]) -> Vec<ServerAddr> {
    urls.iter().map(|url| url.parse().expect("a URL")).collect()
}

pub(crate) async fn read_nats(
    jetstream: &jetstream::Context,
    subject: &str,
    from: u64,
) -> anyhow::Result<Vec<Stored>> {
    // Asked each time: a host may make the stream later than we first look.
    let stream = match jetstream.stream_by_subject(subject).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let stream = jetstream.get_stream(stream).await?;
    let config = consumer::pull::Config {
        filter_subject: subject.to_owned(),
        ack_policy: consumer::AckPolicy::None,
        deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    };
    let reader = stream.create_consumer(config).await?;
    let name = reader.cached_info().name.clone();
    let mut owed = usize::try_from(reader.cached_info().num_pending)?;
    let mut all = Vec::with_capacity(owed);
    while owed > 0 {
        let mut batch = reader.fetch().max_messages(owed.min(1000)).messages().await?;
        while let Some(message) = tokio::time::timeout(PATIENCE, batch.next()).await? {
            let message = message.map_err(|e| anyhow::anyhow!("{e}"))?;
            let info = message.info().map_err(|e| anyhow::anyhow!("{e}"))?;
            let at = u64::try_from(info.published.unix_timestamp_nanos())?;
            all.push(Stored {
                sequence: info.stream_sequence,
                at,
                subject: message.subject.to_string(),
                data: message.payload.clone(),
                headers: pairs(message.headers.as_ref()),
            });
            owed -= 1;
        }
    }
    stream.delete_consumer(&name).await?;
    Ok(all)
}

fn pairs(headers: Option<&HeaderMap>) -> Vec<(String, String)> {
    let all = headers.into_iter().flat_map(HeaderMap::iter);
    all.flat_map(|(name, values)| values.iter().map(|value| (name.to_string(), value.to_string()))).collect()
}
