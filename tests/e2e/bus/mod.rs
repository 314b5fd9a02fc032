//! The bus's conformance suite: what `cofferdam_bus::Bus` promises, written against the trait. Each behaviour listed in a
//! `conformance!` runs on every bus there is. What only NATS can do to us (cuts, kills) is in [`cells`], [`crashes`] and [`servers`].

mod cells;
mod commits;
mod crashes;
mod durables;
mod kv;
mod processes;
mod publishing;
mod refusals;
mod servers;
mod streams;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cofferdam_bus::{
    Bus, Change, ConsumerSpec, Deliveries, Delivery, Message, Opened, Origin, Point, Publish, Snapshot,
    StreamSpec, Undeliverable, Write, nats,
};
use harness::nats::Server;

/// Makes a test of each behaviour on each bus.
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
    };
}
use conformance;

/// Longer than any machine needs; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that stores messages, and ways to reach it.
struct World {
    server: Server,
}

impl World {
    async fn nats() -> World {
        World { server: Server::start().await }
    }

    /// A bus of its own, as another host would have.
    async fn bus(&self) -> Arc<dyn Bus> {
        bus_at(&self.server.url()).await
    }

    /// What stores the messages stops and starts again.
    async fn restart(&mut self) {
        self.server.stop().await;
        self.server.up().await;
    }
}

async fn bus_at(url: &str) -> Arc<dyn Bus> {
    nats::connect(nats::NatsConfig::new(url), undeliverable()).await.expect("a connection")
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

/// All that a stream holds under `filter`, as subject and data, by a durable of its own.
async fn stored(bus: &Arc<dyn Bus>, stream: &str, filter: &str) -> Vec<(String, String)> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("reader-{}-{n}", std::process::id());
    let (_, mut deliveries) = follow(bus, &consumer_spec(stream, &name, filter)).await;
    let mut found = Vec::new();
    // The marker comes last: then everything before it has been seen.
    let mark = format!("mark-{n}");
    let subject = filter.replace(['*', '>'], "mark");
    put(bus, &subject, mark.clone()).await;
    loop {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.expect("an ack");
        if text(&delivery) == mark {
            deliveries.close().await;
            return found
                .into_iter()
                .filter(|(_, data): &(String, String)| !data.starts_with("mark-"))
                .collect();
        }
        found.push((delivery.stored.message.subject.clone(), text(&delivery).to_owned()));
    }
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
    Change { writes: Vec::new(), effects: effects.iter().map(|(s, d)| message(s, *d)).collect() }
}

fn value<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    snapshot.state.entries.get(key).map(|v| std::str::from_utf8(v).expect("text"))
}
