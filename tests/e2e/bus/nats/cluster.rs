//! Three nodes instead of one: leaders that are killed or step down in the middle of things, and what a repeated write is
//! told then.

use std::time::Duration;

use cofferdam_bus::{CommitError, nats::NatsConfig};
use futures_util::future::select_all;
use harness::{
    cluster::Cluster,
    proxy::{Act, Proxy},
};
use serde_json::Value;

use super::super::{
    commits::plant,
    timers::{after, timer, timers},
    *,
};

/// A bus that knows each address, and keeps what it creates on three nodes.
async fn bus_on(urls: Vec<String>) -> Arc<dyn Bus> {
    let patient = Duration::from_secs(30);
    let config = NatsConfig { urls, replicas: 3, connect_timeout: patient, ..NatsConfig::new("") };
    connect(config, undeliverable()).await.expect("a connection")
}

async fn settle(bus: &Arc<dyn Bus>, delivery: &Delivery, base: Snapshot, change: Change) {
    let outcome = soon("a commit", bus.commit(delivery, base, change)).await;
    assert!(matches!(outcome, Ok(_) | Err(CommitError::Settled)), "{outcome:?}");
}

/// Another run of an event that is done.
async fn comes_to_nothing(bus: &Arc<dyn Bus>, delivery: &Delivery, point: &Point) {
    if let Opened::Fresh(base) = soon("an open", bus.open(delivery, point)).await.unwrap() {
        let outcome = soon("a commit", bus.commit(delivery, base, effects(&[("out.a", "again")]))).await;
        assert!(matches!(outcome, Err(CommitError::Settled)), "{point:?}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_three_nodes_has_what_the_daemon_creates() {
    let cluster = Cluster::start(3).await;
    let bus = bus_on(cluster.urls()).await;
    stream(&bus, "IN", &["in.>"]).await;
    bus.bucket("settings").await.unwrap();
    let client = cluster.nodes()[0].client().await;
    for name in ["COFFERDAM", "IN", "KV_settings"] {
        let asked = client.request(format!("$JS.API.STREAM.INFO.{name}"), "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&asked.payload).unwrap();
        assert_eq!(info["config"]["num_replicas"], 3, "{name}: {info}");
    }
}

/// What was stored, sorted: a publish that is repeated comes after one to another subject.
async fn outputs(bus: &Arc<dyn Bus>) -> Vec<String> {
    let stored = stored(bus, "OUT", "out.>").await;
    let mut all: Vec<String> = data(&stored).into_iter().map(str::to_owned).collect();
    all.sort();
    all
}

/// The leader of our own stream is killed after the event was opened: the commit waits for the next one.
async fn leader_killed_before(point: Point) {
    let mut cluster = Cluster::start(3).await;
    let bus = bus_on(cluster.urls()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &point).await;
    let leader = cluster.leader("COFFERDAM").await;
    cluster.node(leader).kill().await;
    settle(&bus, &delivery, base, effects(&[("out.a", "1"), ("out.b", "2")])).await;
    cluster.node(leader).up().await;
    comes_to_nothing(&bus, &delivery, &point).await;
    assert_eq!(outputs(&bus).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_outlives_the_leader_that_was_to_take_it() {
    tokio::join!(leader_killed_before(cell("c")), leader_killed_before(Point::Record));
}

/// The write of a commit point arrives, its answer is lost, and the next leader is asked the same again.
async fn repeated_to_another_leader(point: Point) {
    let mut cluster = Cluster::start(3).await;
    let mut proxies = Vec::new();
    for node in cluster.nodes() {
        proxies.push(Proxy::before(node.port()).await);
    }
    let bus = bus_on(proxies.iter().map(Proxy::url).collect()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &point).await;
    let leader = cluster.leader("COFFERDAM").await;
    let written = if point == Point::Record { "cd.c." } else { "cd.s." };
    proxies.iter().for_each(|proxy| proxy.once(written, 0, Act::CutAfter));
    let change = effects(&[("out.a", "1"), ("out.b", "2")]);
    let (committing, delivery) = (bus.clone(), Arc::new(delivery));
    let commit = tokio::spawn({
        let delivery = delivery.clone();
        async move { settle(&committing, &delivery, base, change).await }
    });
    soon("the cut", select_all(proxies.iter_mut().map(|proxy| Box::pin(proxy.acted(1))))).await;
    proxies.iter().for_each(Proxy::forget);
    cluster.node(leader).kill().await;
    soon("the commit", commit).await.unwrap();
    cluster.node(leader).up().await;
    comes_to_nothing(&bus, &delivery, &point).await;
    assert_eq!(outputs(&bus).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_repeated_to_another_leader_has_the_same_outcome() {
    tokio::join!(repeated_to_another_leader(cell("c")), repeated_to_another_leader(Point::Record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_a_key_stay_one_chain_while_leaders_change() {
    const EVENTS: u64 = 40;
    let cluster = Cluster::start(3).await;
    let bus = bus_on(cluster.urls()).await;
    let (_, mut deliveries) = plant(&bus).await;
    for n in 0..EVENTS {
        put(&bus, "in.1", n.to_string()).await;
    }
    let point = cell("c");
    let (done, mut told) = tokio::sync::watch::channel(0);
    let work = async {
        for handled in 1.. {
            let delivery = next(&mut deliveries).await;
            if let Opened::Fresh(base) = soon("an open", bus.open(&delivery, &point)).await.unwrap() {
                let count = value(&base, "count").map_or(0, |n| n.parse::<u64>().unwrap()) + 1;
                let mut change = effects(&[("out.a", &count.to_string())]);
                change.writes.push(write("count", &count.to_string()));
                settle(&bus, &delivery, base, change).await;
                if count == EVENTS {
                    break;
                }
            }
            done.send_replace(handled);
        }
    };
    let changes = async {
        for (at, stream) in [(5, "COFFERDAM"), (12, "OUT"), (20, "IN"), (28, "COFFERDAM")] {
            told.wait_for(|handled| *handled >= at).await.unwrap();
            cluster.step_down(stream).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = changes => {}
    }
    let expected: Vec<String> = (1..=EVENTS).map(|n| n.to_string()).collect();
    assert_eq!(data(&stored(&bus, "OUT", "out.>").await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_fire_once_when_the_leader_that_holds_them_is_killed() {
    const TIMERS: usize = 12;
    let mut cluster = Cluster::start(3).await;
    let bus = bus_on(cluster.urls()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    // Some are due while nobody leads.
    let due = |n: usize| after(Duration::from_millis(400 * n as u64));
    let set: Vec<_> = (0..TIMERS).map(|n| timer(&format!("t{n}"), due(n), "out.a", &n.to_string())).collect();
    settle(&bus, &delivery, base, timers(&set)).await;
    let leader = cluster.leader("COFFERDAM").await;
    cluster.node(leader).kill().await;
    cluster.leader_after("COFFERDAM", leader).await;
    cluster.node(leader).up().await;
    // Its leader may have been on the same node.
    let mut outs =
        wait_for("a reader", async || bus.read("OUT", "out.>", Start::Sequence(0)).await.ok()).await;
    let mut fired = Vec::new();
    while fired.len() < TIMERS {
        let message = soon("a firing", outs.next()).await.unwrap().message;
        fired.push(String::from_utf8(message.data.to_vec()).unwrap().parse::<usize>().unwrap());
    }
    let again = tokio::time::timeout(Duration::from_secs(2), outs.next()).await;
    assert!(again.is_err(), "{fired:?}, then {again:?}");
    fired.sort_unstable();
    assert_eq!(fired, (0..TIMERS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_outlives_each_node_in_turn() {
    let mut cluster = Cluster::start(3).await;
    let bus = bus_on(cluster.urls()).await;
    stream(&bus, "OUT", &["out.>"]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn({
        let bus = bus.clone();
        async move {
            let mut confirmed = 0;
            while !*stopped.borrow() {
                // An error leaves open whether it is stored: the same again, until it is.
                let publish = async || {
                    let publish = Publish { message_id: Some(format!("m{confirmed}")), ..Publish::default() };
                    bus.publish(message("out.a", confirmed.to_string()), publish).await
                };
                while publish().await.is_err() {}
                confirmed += 1;
            }
            confirmed
        }
    });
    for number in 0..3 {
        cluster.node(number).kill().await;
        cluster.leader("OUT").await;
        cluster.node(number).up().await;
        cluster.ready().await;
    }
    stop.send_replace(true);
    let confirmed = soon("the load", load).await.unwrap();
    let expected: Vec<String> = (0..confirmed).map(|n: u64| n.to_string()).collect();
    assert_eq!(data(&stored(&bus, "OUT", "out.>").await), expected);
}
