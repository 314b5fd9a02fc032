//! The bus's conformance suite: what `cofferdam_bus::Bus` promises, written against the trait alone. Each behaviour listed
//! in a `conformance!` is a test on every bus there is. What only one bus can do or suffer is in [`nats`] and [`local`].

mod backlog;
mod cells;
mod commits;
mod deleting;
mod durables;
mod kv;
mod listening;
mod local;
mod nats;
mod ordered;
mod ours;
mod publishing;
mod reading;
mod refusals;
mod restarts;
mod retention;
mod single;
mod streams;
mod timers;
mod wanting;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cofferdam_bus::{
    Bus, Change, ConsumerSpec, Deliveries, Delivery, Message, Opened, Origin, Point, Publish, Reader,
    Snapshot, Start, Stored, StreamSpec, Undeliverable, Write,
    local::LocalConfig,
    nats::{NatsConfig, Timing, connect, connect_with},
};
use harness::{nats::Server, wait::wait_for};

/// Makes a test of each behaviour on each bus, so that no bus has more cases than another. `cargo xtask test` counts
/// them by the names of the modules made here.
macro_rules! conformance {
    ($($behaviour:ident),* $(,)?) => {
        mod on_nats {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::$behaviour(crate::bus::World::nats().await).await;
                }
            )*
        }
        mod on_local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::$behaviour(crate::bus::World::local().await).await;
                }
            )*
        }
    };
}
use conformance;

/// Longer than any machine needs; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that stores messages, and ways to reach it.
enum World {
    Nats(Box<Server>),
    Local(Local),
}

/// A directory, and the one bus that has it open.
struct Local {
    directory: tempfile::TempDir,
    bus: Option<Arc<dyn Bus>>,
}

impl World {
    async fn nats() -> World {
        World::Nats(Box::new(Server::start().await))
    }

    async fn local() -> World {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bus = Some(open(&directory).await);
        World::Local(Local { directory, bus })
    }

    /// A bus of its own, as another host would have; where one process has the directory, what all of it shares.
    async fn bus(&self) -> Arc<dyn Bus> {
        match self {
            World::Nats(server) => bus_at(&server.url()).await,
            World::Local(local) => local.bus.clone().expect("an open bus"),
        }
    }

    /// What stores the messages stops and starts again. The caller has dropped all that came from its buses.
    async fn restart(&mut self) {
        match self {
            World::Nats(server) => {
                server.stop().await;
                server.up().await;
            }
            World::Local(local) => {
                local.bus = None;
                local.bus = Some(open(&local.directory).await);
            }
        }
    }
}

async fn open(directory: &tempfile::TempDir) -> Arc<dyn Bus> {
    let config = LocalConfig { directory: directory.path().to_owned() };
    cofferdam_bus::local::open(config).await.expect("an open bus")
}

async fn bus_at(url: &str) -> Arc<dyn Bus> {
    connect(NatsConfig::new(url), undeliverable()).await.expect("a connection")
}

/// One that forgets after so much less than a minute and a half.
async fn hurried_at(url: &str, timing: Timing) -> Arc<dyn Bus> {
    connect_with(NatsConfig::new(url), undeliverable(), timing).await.expect("a connection")
}

fn undeliverable() -> Undeliverable {
    Arc::new(|effect, reason| Message {
        subject: format!("dead.{}", effect.subject),
        headers: vec![("Reason".into(), reason.to_owned())],
        data: effect.data.clone(),
    })
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

fn message(subject: &str, data: impl Into<String>) -> Message {
    Message { subject: subject.to_owned(), headers: Vec::new(), data: Bytes::from(data.into()) }
}

fn stream_spec(name: &str, subjects: &[&str]) -> StreamSpec {
    StreamSpec {
        name: name.to_owned(),
        subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
        max_age: None,
        max_messages: None,
        max_bytes: None,
        duplicate_window: None,
    }
}

fn consumer_spec(stream: &str, durable: &str, filter: &str) -> ConsumerSpec {
    ConsumerSpec {
        stream: stream.to_owned(),
        durable: durable.to_owned(),
        filter: filter.to_owned(),
        ack_wait: Duration::from_secs(30),
        max_deliver: None,
        max_ack_pending: 1000,
        ordered: false,
    }
}

async fn stream(bus: &Arc<dyn Bus>, name: &str, subjects: &[&str]) {
    bus.ensure_stream(&stream_spec(name, subjects)).await.expect("a stream");
}

async fn follow(bus: &Arc<dyn Bus>, spec: &ConsumerSpec) -> (Arc<Origin>, Box<dyn Deliveries>) {
    let origin = bus.ensure_consumer(spec).await.expect("a durable");
    let deliveries = bus.deliveries(&origin, 16).await.expect("deliveries");
    (origin, deliveries)
}

async fn put(bus: &Arc<dyn Bus>, subject: &str, data: impl Into<String>) -> u64 {
    bus.publish(message(subject, data), Publish::default()).await.expect("a publish").sequence
}

async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    soon("a delivery", deliveries.next()).await.expect("a delivery")
}

async fn nothing_for(deliveries: &mut Box<dyn Deliveries>, time: Duration) {
    if let Ok(delivery) = tokio::time::timeout(time, deliveries.next()).await {
        panic!("nothing was to come, but: {delivery:?}");
    }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.stored.message.data).expect("text")
}

async fn reader(bus: &Arc<dyn Bus>, stream: &str, filter: &str, start: Start) -> Box<dyn Reader> {
    bus.read(stream, filter, start).await.expect("a reader")
}

/// All that is stored by now from where the reader is.
async fn rest(reader: &mut Box<dyn Reader>) -> Vec<Stored> {
    let mut found = Vec::new();
    while let Some(stored) = soon("a stored message", reader.stored()).await.expect("a stored message") {
        found.push(stored);
    }
    found
}

/// All that a stream holds under `filter`.
async fn held(bus: &Arc<dyn Bus>, stream: &str, filter: &str) -> Vec<Stored> {
    rest(&mut reader(bus, stream, filter, Start::Sequence(0)).await).await
}

/// The same, as subject and data.
async fn stored(bus: &Arc<dyn Bus>, stream: &str, filter: &str) -> Vec<(String, String)> {
    let text = |data: &Bytes| std::str::from_utf8(data).expect("text").to_owned();
    let found = held(bus, stream, filter).await;
    found.into_iter().map(|s| (s.message.subject.clone(), text(&s.message.data))).collect()
}

/// Waits until nothing is stored under the filter any more.
async fn emptied(bus: &Arc<dyn Bus>, stream: &str, filter: &str) {
    wait_for(&format!("the end of all under {filter}"), async || {
        stored(bus, stream, filter).await.is_empty().then_some(())
    })
    .await;
}

/// The same of a subject, whatever its stream is.
async fn ended(bus: &Arc<dyn Bus>, subject: &str) {
    wait_for(&format!("the end of {subject}"), async || {
        bus.last(subject).await.unwrap().is_none().then_some(())
    })
    .await;
}

fn data(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(_, data)| data.as_str()).collect()
}

fn cell(name: &str) -> Point {
    Point::Cell { space: "test".into(), cell: name.into() }
}

async fn fresh(bus: &Arc<dyn Bus>, delivery: &Delivery, point: &Point) -> Snapshot {
    match soon("an open", bus.open(delivery, point)).await.expect("an open") {
        Opened::Fresh(snapshot) => snapshot,
        Opened::Settled => panic!("{delivery:?} has settled already"),
    }
}

async fn settled(bus: &Arc<dyn Bus>, delivery: &Delivery, point: &Point) -> bool {
    matches!(soon("an open", bus.open(delivery, point)).await.expect("an open"), Opened::Settled)
}

fn write(key: &str, value: &str) -> Write {
    Write::Put { key: key.to_owned(), value: Bytes::from(value.to_owned()) }
}

fn effects(effects: &[(&str, &str)]) -> Change {
    Change { effects: effects.iter().map(|(s, d)| message(s, *d)).collect(), ..Change::default() }
}

fn value<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    snapshot.state.entries.get(key).map(|v| std::str::from_utf8(v).expect("text"))
}
