//! A process that uses the bus is killed while it holds something, and the server lives on.

use std::time::Duration;

use harness::child::Driven;
use serde_json::json;
use tokio::time::Instant;

use super::super::*;

const CHILD: &str = env!("CARGO_BIN_EXE_bus-child");

async fn child(server: &Server, ack_wait: Duration) -> Driven {
    let mut child = Driven::start(CHILD, &[&server.url()]);
    let wait = u64::try_from(ack_wait.as_millis()).unwrap();
    child
        .ask(json!({ "do": "follow", "stream": "S", "durable": "d", "filter": "s.>", "ack_wait_ms": wait }))
        .await;
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_held_unacked_comes_to_another() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "S", &["s.>"]).await;
    for n in 0..8 {
        put(&bus, "s.1", n.to_string()).await;
    }
    let wait = Duration::from_secs(1);
    let mut child = child(&server, wait).await;
    // Two taken, the rest in its buffer.
    child.ask(json!({ "do": "take" })).await;
    let taken = child.ask(json!({ "do": "take" })).await;
    child.kill().await;
    let (origin, mut deliveries) =
        follow(&bus, &ConsumerSpec { ack_wait: wait, ..consumer_spec("S", "d", "s.>") }).await;
    assert_eq!(taken["id"], format!("{}.2", origin.id));
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 8 {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        seen.insert(delivery.stored.sequence);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_delayed_comes_after_its_delay() {
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "S", &["s.>"]).await;
    put(&bus, "s.1", "x").await;
    let wait = Duration::from_secs(20);
    let delay = Duration::from_secs(2);
    let mut child = child(&server, wait).await;
    child.ask(json!({ "do": "take" })).await;
    let began = Instant::now();
    child.ask(json!({ "do": "nak", "delay_ms": 2000 })).await;
    child.kill().await;
    // The delay is the server's to keep, over its own restart too, if only to a second.
    drop(bus);
    server.stop().await;
    server.up().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) =
        follow(&bus, &ConsumerSpec { ack_wait: wait, ..consumer_spec("S", "d", "s.>") }).await;
    next(&mut deliveries).await.ack().await.unwrap();
    let after = began.elapsed();
    assert!(after >= delay - Duration::from_millis(1050), "after {after:?}");
    nothing_for(&mut deliveries, Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_published_is_remembered_by_its_id() {
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "S", &["s.>"]).await;
    let mut child = child(&server, Duration::from_secs(30)).await;
    let publish = json!({ "do": "publish", "subject": "s.1", "data": "once", "id": "the id" });
    assert_eq!(child.ask(publish.clone()).await, json!({ "sequence": 1, "duplicate": false }));
    child.kill().await;
    let mut second = self::child(&server, Duration::from_secs(30)).await;
    assert_eq!(second.ask(publish.clone()).await, json!({ "sequence": 1, "duplicate": true }));
    second.kill().await;
    drop(bus);
    server.stop().await;
    server.up().await;
    let mut third = self::child(&server, Duration::from_secs(30)).await;
    assert_eq!(third.ask(publish).await, json!({ "sequence": 1, "duplicate": true }));
}
