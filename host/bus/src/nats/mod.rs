//! The bus on NATS JetStream: connecting, and the trait's functions by the files that do them.

mod acks;
mod backlog;
mod clock;
mod commit;
mod consumers;
mod deliveries;
mod floors;
mod forget;
mod headers;
mod jsapi;
mod kv;
mod link;
mod listener;
mod publish;
mod read;
mod reader;
mod single;
mod streams;
mod takeover;
mod timers;
mod timing;
mod waiting;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{ConnectOptions, Event, ServerAddr};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::{
    api::{
        Bucket, Bus, Change, Committed, Connection, ConsumerSpec, Deliveries, Delivery, Listener, Message,
        Opened, Origin, OtherCell, Point, Publish, PublishAck, Reader, Snapshot, Start, Stored, StreamInfo,
        StreamSpec, Undeliverable,
    },
    backlog::Backlog,
    error::{CommitError, Error},
};
use jsapi::code;
use link::Link;
#[doc(hidden)]
pub use timing::Timing;

/// Older servers lack what commits are made with (message TTL, schedules, atomic batches).
const OLDEST: (u64, u64) = (2, 12);
/// A peer that vanished without a word is noticed after about three of these.
const PING: Duration = Duration::from_secs(5);
/// The longest wait between attempts to reconnect.
const RECONNECT: Duration = Duration::from_secs(2);

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// `nats://host:port`, or `tls://`, also with `user:password@` or `token@`; several of one cluster.
    pub urls: Vec<String>,
    /// A `.creds` file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// PEM file with the certificates to trust besides the system's.
    pub root_ca: Option<PathBuf>,
    /// PEM files with our certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Shown in the server's connection list.
    pub name: String,
    /// How long to wait for the first connection.
    pub connect_timeout: Duration,
    /// On how many nodes of a cluster each stream is kept that is created from here: 1, 3 or 5.
    pub replicas: u32,
}

impl NatsConfig {
    /// No credentials, 5 s to connect, one replica.
    pub fn new(url: impl Into<String>) -> NatsConfig {
        NatsConfig {
            urls: vec![url.into()],
            credentials: None,
            root_ca: None,
            client_certificate: None,
            name: "cofferdam".into(),
            connect_timeout: Duration::from_secs(5),
            replicas: 1,
        }
    }

    /// For messages: without user and password.
    fn shown(&self) -> String {
        let bare = |url: &String| match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
            (None, Some(at)) => url[at + 1..].to_owned(),
            _ => url.clone(),
        };
        self.urls.iter().map(bare).collect::<Vec<_>>().join(", ")
    }
}

/// Connects, looks whether the server will do, and creates our own stream if it is missing. A connection lost later is
/// made again for ever.
pub async fn connect(config: NatsConfig, undeliverable: Undeliverable) -> Result<Arc<dyn Bus>, Error> {
    connect_with(config, undeliverable, Timing::default()).await
}

/// For tests that can't wait for an hour.
#[doc(hidden)]
pub async fn connect_with(
    config: NatsConfig,
    undeliverable: Undeliverable,
    timing: Timing,
) -> Result<Arc<dyn Bus>, Error> {
    let shown = config.shown();
    let (link, info) = match tokio::time::timeout(config.connect_timeout, dial(&config, timing)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(unreachable(&shown, &format!("no answer within {:?}", config.connect_timeout))),
    };
    check_version(&shown, &info)?;
    check_jetstream(&shown, &link).await?;
    streams::ensure_ours(&link).await?;
    // A bus of its own over the same connection: it ends when ours is dropped.
    let forwarder = timers::start(NatsBus::new(link.clone(), undeliverable.clone(), None)).await?;
    let bus = NatsBus::new(link, undeliverable, Some(forwarder));
    tokio::spawn(forget::run(Arc::downgrade(&bus)));
    Ok(bus)
}

fn unreachable(shown: &str, why: &str) -> Error {
    Error::Unavailable(format!(
        "NATS at {shown}: {why}; start nats-server (2.12 or newer, with -js) there, or correct the URL and credentials"
    ))
}

async fn dial(config: &NatsConfig, timing: Timing) -> Result<(Link, String), Error> {
    let shown = config.shown();
    let (up, connection) = watch::channel(Connection::Down { reason: "connecting".into() });
    let (epoch, epochs) = watch::channel(0u64);
    let (end, ended) = watch::channel(0u64);
    let (up, epoch, end) = (Arc::new(up), Arc::new(epoch), Arc::new(end));
    let at = shown.clone();
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .ping_interval(PING)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1).min(6);
            (Duration::from_millis(50) * 2u32.pow(doublings)).min(RECONNECT)
        })
        .event_callback(move |event| {
            let (up, epoch, end, at) = (up.clone(), epoch.clone(), end.clone(), at.clone());
            async move {
                // The client tells of the next connection only after the end of this one; were it not so, this one is over.
                if matches!(event, Event::Connected | Event::Disconnected | Event::Closed) {
                    end.send_replace(*epoch.borrow());
                }
                match event {
                    Event::Connected => {
                        epoch.send_modify(|e| *e += 1);
                        up.send_replace(Connection::Up);
                    }
                    Event::Disconnected => {
                        up.send_replace(Connection::Down {
                            reason: format!("the connection to {at} was lost"),
                        });
                    }
                    Event::ClientError(e) => {
                        up.send_if_modified(|c| match c {
                            Connection::Down { reason } => {
                                *reason = format!("NATS at {at} can't be reached: {e}");
                                true
                            }
                            Connection::Up => false,
                        });
                    }
                    Event::Closed => {
                        up.send_replace(Connection::Down { reason: "the connection was closed".into() });
                    }
                    _ => {}
                }
            }
        });
    if let Some(path) = &config.credentials {
        let fault = |e: std::io::Error| Error::Refused(format!("credentials file {}: {e}", path.display()));
        options = options.credentials_file(path).await.map_err(fault)?;
    }
    if let Some(path) = &config.root_ca {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &config.client_certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let addresses: Vec<ServerAddr> = config
        .urls
        .iter()
        .map(|url| url.parse().map_err(|e| Error::Refused(format!("the URL {shown} is not valid: {e}"))))
        .collect::<Result<_, _>>()?;
    // The client itself takes no notice of these.
    if let Some((user, password)) = addresses.iter().find_map(|a| Some((a.username()?, a.password()))) {
        options = match password {
            Some(password) => options.user_and_password(user.to_owned(), password.to_owned()),
            None => options.token(user.to_owned()),
        };
    }
    let client = options.connect(addresses).await.map_err(|e| unreachable(&shown, &describe(&e)))?;
    let version = client.server_info().version;
    let link = Link::new(client, connection, epochs, ended, config.replicas, timing);
    link.up().await;
    Ok((link, version))
}

/// An error with its causes in one line.
fn describe(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

fn check_version(shown: &str, version: &str) -> Result<(), Error> {
    let mut numbers = version.split(['.', '-']).map(|n| n.parse::<u64>().ok());
    let major_minor = (numbers.next().flatten(), numbers.next().flatten());
    match major_minor {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(Error::Unusable(format!(
            "nats-server {version} at {shown} is too old; install {}.{} or newer",
            OLDEST.0, OLDEST.1
        ))),
    }
}

async fn check_jetstream(shown: &str, link: &Link) -> Result<(), Error> {
    let disabled = |why: &str| {
        Error::Unusable(format!(
            "JetStream is not enabled at {shown} ({why}); start nats-server with -js, or enable it for the account"
        ))
    };
    match link.call::<Value>("INFO", &json!({})).await {
        Ok(_) => Ok(()),
        Err(jsapi::CallError::Silence(link::Silence::NoResponders)) => Err(disabled("nobody answers")),
        Err(e) if e.is(code::NOT_ENABLED) || e.is(code::NOT_ENABLED_FOR_ACCOUNT) => {
            Err(disabled(&Error::from(e).to_string()))
        }
        Err(e) => Err(e.into()),
    }
}

struct NatsBus {
    me: std::sync::Weak<NatsBus>,
    link: Link,
    undeliverable: Undeliverable,
    streams: streams::Streams,
    floors: floors::Floors,
    backlogs: backlog::Backlogs,
    applied: commit::Applied,
    batches: commit::Open,
    lookups: commit::Lookups,
    /// Stores what timers leave behind, for as long as this is here.
    _forwarder: Option<DropGuard>,
}

impl NatsBus {
    fn new(link: Link, undeliverable: Undeliverable, forwarder: Option<DropGuard>) -> Arc<NatsBus> {
        Arc::new_cyclic(|me| NatsBus {
            me: me.clone(),
            link,
            undeliverable,
            streams: Default::default(),
            floors: Default::default(),
            backlogs: Default::default(),
            applied: Default::default(),
            batches: Default::default(),
            lookups: Default::default(),
            _forwarder: forwarder,
        })
    }

    /// For what outlives a call.
    fn arc(&self) -> Result<Arc<NatsBus>, Error> {
        self.me.upgrade().ok_or_else(|| Error::Unavailable("the bus is closing".into()))
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn kind(&self) -> &'static str {
        "nats"
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.link.connection()
    }

    async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamInfo, Error> {
        self.streams.ensure(&self.link, spec).await
    }

    async fn covering(&self, subject: &str) -> Result<Option<StreamInfo>, Error> {
        crate::subject::check_filter(subject)?;
        Ok(self.streams.covering(&self.link, subject).await?.map(|facts| facts.info.clone()))
    }

    async fn stores(&self, subject: &str) -> Result<bool, Error> {
        crate::subject::check_filter(subject)?;
        Ok(self.streams.covering(&self.link, subject).await?.is_some())
    }

    async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<Arc<Origin>, Error> {
        let (origin, _) = consumers::ensure(&self.link, spec).await?;
        self.floors.of(&origin);
        Ok(origin)
    }

    async fn durable(&self, stream: &str, name: &str) -> Result<Option<Arc<Origin>>, Error> {
        consumers::find(&self.link, stream, name).await
    }

    async fn deliveries(&self, origin: &Arc<Origin>, buffer: usize) -> Result<Box<dyn Deliveries>, Error> {
        let name = || format!("{}/{}", origin.stream, origin.durable);
        let state = self.floors.existing(&self.link, origin).await?;
        let state = state.ok_or_else(|| Error::Gone { what: "durable", name: name() })?;
        Ok(Box::new(deliveries::Pull::start(&self.arc()?, origin, state, buffer)))
    }

    async fn backlog(&self, origin: &Arc<Origin>) -> Result<Backlog, Error> {
        self.backlogs.look(&self.link, origin).await
    }

    async fn publish(&self, message: Message, how: Publish) -> Result<PublishAck, Error> {
        publish::publish(self, message, how).await
    }

    async fn last(&self, subject: &str) -> Result<Option<Stored>, Error> {
        crate::subject::check(subject)?;
        let facts = self.streams.covering(&self.link, subject).await?;
        let facts = facts.ok_or_else(|| Error::NoStream { subject: subject.to_owned() })?;
        Ok(read::last(&self.link, &facts.info.name, subject).await?)
    }

    fn max_commit(&self) -> usize {
        commit::max_size(self)
    }

    async fn open(&self, delivery: &Delivery, point: &Point) -> Result<Opened, Error> {
        commit::open(self, delivery, point).await
    }

    async fn cell(&self, space: &str, cell: &str) -> Result<OtherCell, Error> {
        commit::other_cell(self, space, cell).await
    }

    async fn peek(&self, space: &str, cell: &str) -> Result<OtherCell, Error> {
        commit::peek_cell(self, space, cell).await
    }

    async fn commit(
        &self,
        delivery: &Delivery,
        base: Snapshot,
        change: Change,
    ) -> Result<Committed, CommitError> {
        commit::commit(self, delivery, base, change).await
    }

    async fn bucket(&self, name: &str) -> Result<Arc<dyn Bucket>, Error> {
        kv::open(self.arc()?, name).await
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>, Error> {
        streams::all(&self.link).await
    }

    async fn read(&self, stream: &str, filter: &str, start: Start) -> Result<Box<dyn Reader>, Error> {
        reader::open(self.arc()?, stream, filter, start).await
    }

    async fn message(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
        single::get(&self.link, stream, sequence).await
    }

    async fn delete_message(&self, stream: &str, sequence: u64) -> Result<bool, Error> {
        single::delete(&self.link, stream, sequence).await
    }

    async fn listen(&self, filter: &str) -> Result<Box<dyn Listener>, Error> {
        listener::open(&self.link, filter).await
    }

    async fn delete_stream(&self, name: &str) -> Result<(), Error> {
        self.streams.delete(&self.link, name).await?;
        self.floors.forget(name, None);
        Ok(())
    }

    async fn delete_durable(&self, stream: &str, durable: &str) -> Result<(), Error> {
        consumers::delete(&self.link, stream, durable).await?;
        self.floors.forget(stream, Some(durable));
        Ok(())
    }

    async fn flush(&self) {
        match tokio::time::timeout(link::ANSWER, self.link.client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(%e, "not flushed"),
            Err(_) => tracing::warn!("not flushed: no connection"),
        }
    }

    async fn advise(&self, subject: &str, data: Bytes) {
        if let Err(e) = self.link.client.publish(subject.to_owned(), data).await {
            tracing::debug!(%e, subject, "not advised");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_2_12_are_refused_with_the_remedy() {
        for fine in ["2.12.0", "2.15.1", "2.12.0-RC.1", "3.0.0"] {
            assert_eq!(check_version("u", fine), Ok(()), "{fine}");
        }
        for old in ["2.11.9", "2.9.10", "1.4.1", "", "garbage"] {
            let e = check_version("nats://u", old).unwrap_err().to_string();
            assert!(e.contains("nats://u") && e.contains("2.12 or newer"), "{e}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("nats://me:secret@host:4222", "nats://host:4222"),
            ("me:secret@host", "host"),
            ("nats://host:4222", "nats://host:4222"),
        ] {
            assert_eq!(NatsConfig::new(url).shown(), shown);
        }
    }
}
