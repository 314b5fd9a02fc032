//! Hosts that share an ordered durable: one has the turn, and who comes next begins with all that is outstanding.

use std::time::Duration;

use futures_util::StreamExt;
use harness::{
    child::Driven,
    proxy::{Act, Proxy},
};
use serde_json::json;
use tokio::time::Instant;

use super::super::*;

const CHILD: &str = env!("CARGO_BIN_EXE_bus-child");
const WAIT: Duration = Duration::from_secs(2);

fn spec(ack_wait: Duration) -> ConsumerSpec {
    ConsumerSpec { ordered: true, ack_wait, ..consumer_spec("S", "d", "s.>") }
}

async fn fill(bus: &Arc<dyn Bus>, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        put(bus, "s.1", n.to_string()).await;
    }
}

/// A server, and a host of it.
async fn world() -> (Server, Arc<dyn Bus>) {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    stream(&bus, "S", &["s.>"]).await;
    (server, bus)
}

async fn take(deliveries: &mut Box<dyn Deliveries>, many: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..many {
        taken.push(next(deliveries).await);
    }
    taken
}

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|d| d.stored.sequence).collect()
}

async fn ack(deliveries: &[Delivery]) {
    for delivery in deliveries {
        delivery.ack().await.unwrap();
    }
}

async fn child(server: &Server) -> Driven {
    let mut child = Driven::start(CHILD, &[&server.url()]);
    let follow = json!({
        "do": "follow", "stream": "S", "durable": "d", "filter": "s.>",
        "ack_wait_ms": u64::try_from(WAIT.as_millis()).unwrap(), "ordered": true,
    });
    child.ask(follow).await;
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_at_a_time_takes_deliveries() {
    let (server, bus) = world().await;
    let (_, mut first) = follow(&bus, &spec(WAIT)).await;
    fill(&bus, 1..=1).await;
    ack(&take(&mut first, 1).await).await;
    let (_, mut second) = follow(&bus_at(&server.url()).await, &spec(WAIT)).await;
    fill(&bus, 2..=100).await;
    let taken = take(&mut first, 99).await;
    assert_eq!(sequences(&taken), (2..=100).collect::<Vec<_>>());
    ack(&taken).await;
    nothing_for(&mut second, WAIT + Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_leaves_its_turn_at_once_and_the_next_waits_for_what_still_runs() {
    let (server, bus) = world().await;
    let long = spec(Duration::from_secs(30));
    fill(&bus, 1..=20).await;
    let (_, mut first) = follow(&bus, &long).await;
    let running = take(&mut first, 3).await;
    let (_, mut second) = follow(&bus_at(&server.url()).await, &long).await;
    first.close().await;
    fill(&bus, 21..=40).await;
    nothing_for(&mut second, Duration::from_millis(500)).await;
    ack(&running).await;
    let began = Instant::now();
    let taken = take(&mut second, 37).await;
    assert_eq!(sequences(&taken), (4..=40).collect::<Vec<_>>());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_host_held_comes_before_what_nobody_held() {
    let (server, bus) = world().await;
    fill(&bus, 1..=40).await;
    let mut child = child(&server).await;
    // Two taken, more in its buffer.
    child.ask(json!({ "do": "take" })).await;
    child.ask(json!({ "do": "take" })).await;
    child.kill().await;
    let (_, mut next_host) = follow(&bus, &spec(WAIT)).await;
    fill(&bus, 41..=60).await;
    let taken = take(&mut next_host, 60).await;
    assert_eq!(sequences(&taken), (1..=60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_takes_over_from_itself() {
    let (mut server, bus) = world().await;
    fill(&bus, 1..=40).await;
    let (_, mut deliveries) = follow(&bus, &spec(WAIT)).await;
    let taken = take(&mut deliveries, 5).await;
    ack(&taken[..1]).await;
    bus.flush().await;
    // What was on its way to the old connection comes by the ack wait, behind the barrier.
    server.kill().await;
    server.up().await;
    fill(&bus, 41..=60).await;
    let mut seen: Vec<u64> = sequences(&taken);
    let mut first_of_all = vec![];
    while seen.last() != Some(&60) {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        first_of_all.push(delivery.stored.sequence);
        if !seen.contains(&delivery.stored.sequence) {
            seen.push(delivery.stored.sequence);
        }
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>(), "each for the first time in order");
    assert!(first_of_all.is_sorted(), "{first_of_all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_lost_with_a_connection_come_before_later_ones() {
    let (server, bus) = world().await;
    let proxy = Proxy::before(server.port()).await;
    let host = bus_at(&proxy.url()).await;
    let (_, mut deliveries) = follow(&host, &spec(WAIT)).await;
    fill(&bus, 1..=200).await;
    let mut seen = Vec::new();
    for cut in 0..4u32 {
        // The server has acked what we have not heard of, and sent what we have not got.
        proxy.once("$JS.ACK.S.d", cut * 3, Act::CutAfter);
        while seen.len() < 50 * (cut as usize + 1) {
            let delivery = next(&mut deliveries).await;
            delivery.ack().await.unwrap();
            if !seen.contains(&delivery.stored.sequence) {
                seen.push(delivery.stored.sequence);
            }
        }
    }
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_lost_on_its_way_comes_before_later_ones() {
    let (server, bus) = world().await;
    fill(&bus, 1..=10).await;
    let origin = bus.ensure_consumer(&spec(WAIT)).await.unwrap();
    let mut deliveries = bus.deliveries(&origin, 1).await.unwrap();
    let client = server.client().await;
    // It has asked again for the first, holds it, and asks for no more before that is taken.
    let pin = wait_for("the turn", async || {
        let info = client.request("$JS.API.CONSUMER.INFO.S.d", "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        let asked_again = info["delivered"]["consumer_seq"] == 2 && info["num_waiting"] == 0;
        asked_again.then(|| info["priority_groups"][0]["pinned_client_id"].clone())
    })
    .await;
    // For the server it went to that host.
    let pull = json!({ "batch": 1, "expires": 1_000_000_000, "group": "ordered", "id": pin });
    let inbox = client.new_inbox();
    let mut elsewhere = client.subscribe(inbox.clone()).await.unwrap();
    let to = "$JS.API.CONSUMER.MSG.NEXT.S.d";
    client.publish_with_reply(to, inbox, pull.to_string().into()).await.unwrap();
    assert_eq!(soon("the second", elsewhere.next()).await.unwrap().payload, "2");
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let delivery = next(&mut deliveries).await;
        delivery.ack().await.unwrap();
        if !seen.contains(&delivery.stored.sequence) {
            seen.push(delivery.stored.sequence);
        }
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_nothing_for_a_while_keeps_its_turn() {
    let (server, bus) = world().await;
    fill(&bus, 1..=60).await;
    let (_, mut first) = follow(&bus, &spec(WAIT)).await;
    ack(&take(&mut first, 1).await).await;
    let (_, mut second) = follow(&bus_at(&server.url()).await, &spec(WAIT)).await;
    // Its buffer is full all that time.
    nothing_for(&mut second, WAIT * 3).await;
    let taken = take(&mut first, 59).await;
    assert_eq!(sequences(&taken), (2..=60).collect::<Vec<_>>());
    assert!(taken.iter().all(|d| d.count == 1), "and they have been here all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_back_for_long_does_not_keep_the_next_host_waiting() {
    let (server, bus) = world().await;
    fill(&bus, 1..=3).await;
    let (_, mut first) = follow(&bus, &spec(WAIT)).await;
    next(&mut first).await.nak(Some(Duration::from_secs(3600))).await.unwrap();
    first.close().await;
    let (_, mut second) = follow(&bus_at(&server.url()).await, &spec(WAIT)).await;
    assert_eq!(sequences(&take(&mut second, 3).await), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_come_and_go_and_each_event_comes_in_its_place() {
    const EVENTS: u32 = 2000;
    let (server, bus) = world().await;
    let feed = {
        let bus = bus.clone();
        tokio::spawn(async move { fill(&bus, 1..=EVENTS).await })
    };
    let (done, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut dice = harness::dice::Dice::new();
    let mut hosts: Vec<Host> = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < EVENTS as usize {
        while hosts.len() < 3 {
            hosts.push(Host::start(&server, done.clone()).await);
        }
        let many = 20 + dice.below(150) as usize;
        let upto = (seen.len() + many).min(EVENTS as usize);
        while seen.len() < upto {
            let sequence = soon("an event", told.recv()).await.expect("a host");
            // Acks that were lost bring some again.
            if !seen.contains(&sequence) {
                seen.push(sequence);
            }
        }
        let at = dice.below(hosts.len() as u64) as usize;
        hosts.swap_remove(at).end(dice.below(3)).await;
    }
    feed.await.unwrap();
    assert_eq!(seen, (1..=u64::from(EVENTS)).collect::<Vec<_>>());
    for host in hosts {
        host.end(0).await;
    }
}

/// A host whose caller does each event at once.
struct Host {
    _proxy: Proxy,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Host {
    async fn start(server: &Server, done: tokio::sync::mpsc::UnboundedSender<u64>) -> Host {
        let proxy = Proxy::before(server.port()).await;
        let bus = bus_at(&proxy.url()).await;
        let (_, mut deliveries) = follow(&bus, &spec(Duration::from_secs(1))).await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return deliveries.close().await,
                    delivery = deliveries.next() => {
                        let delivery = delivery.expect("a delivery");
                        if done.send(delivery.stored.sequence).is_err() {
                            return;
                        }
                        delivery.ack().await.expect("an ack");
                    }
                }
            }
        });
        Host { _proxy: proxy, stop, task }
    }

    /// Cleanly, or as a kill, at once or with its connection first.
    async fn end(self, how: u64) {
        match how {
            0 => {
                let _told = self.stop.send(());
                self.task.await.expect("a clean end");
            }
            1 => self.task.abort(),
            _ => {
                drop(self._proxy);
                self.task.abort();
            }
        }
    }
}
