//! Batches of several cells on NATS: whoever is killed or cut off at whatever step, all of it is stored or nothing, once.

use std::time::Duration;

use cofferdam_bus::{CommitError, Committed, OtherCell, StreamSpec};
use harness::{
    child::Driven,
    cluster::Cluster,
    proxy::{Act, Proxy},
};
use serde_json::json;

use super::super::{
    cells::{assert_sum, other, set, transfer},
    commits::out,
    *,
};

const CHILD: &str = env!("CARGO_BIN_EXE_bus-child");
const WINDOW: Duration = Duration::from_secs(120);
/// Shorter than the ack wait: forgotten when the event comes again.
const EXPIRED: Duration = Duration::from_secs(1);

fn events() -> ConsumerSpec {
    ConsumerSpec { ack_wait: Duration::from_millis(1500), ..consumer_spec("IN", "d", "in.>") }
}

async fn plant(bus: &Arc<dyn Bus>, window: Duration) {
    stream(bus, "IN", &["in.>"]).await;
    stream(bus, "DEAD", &["dead", "dead.>"]).await;
    bus.ensure_stream(&StreamSpec { duplicate_window: Some(window), ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
}

/// A process behind the proxy that has taken the one event there is.
async fn child(proxy: &Proxy) -> Driven {
    let mut child = Driven::start(CHILD, &[&proxy.url()]);
    let follow =
        json!({ "do": "follow", "stream": "IN", "durable": "d", "filter": "in.>", "ack_wait_ms": 1500 });
    child.ask(follow).await;
    child.ask(json!({ "do": "take" })).await;
    child
}

fn held_by(other: &OtherCell) -> String {
    let value = other.state.entries.get("k").cloned().unwrap_or_default();
    String::from_utf8(value.to_vec()).unwrap()
}

/// Writes `k` of `b` and `c`, reads `d`, and stores three effects, on fresh state until it has committed.
async fn run(bus: &Arc<dyn Bus>, delivery: &Delivery, point: &Point, by: &str) {
    loop {
        let Opened::Fresh(base) = soon("an open", bus.open(delivery, point)).await.unwrap() else { return };
        let mut change = effects(&[("out.a", by), ("out.b", by), ("out.a", by)]);
        for name in ["b", "c", "d"] {
            let mut other = other(bus, name).await;
            other.writes.extend((name != "d").then(|| write("k", by)));
            change.others.push(other);
        }
        change.writes.extend((*point != Point::Record).then(|| write("k", by)));
        match soon("a commit", bus.commit(delivery, base, change)).await {
            Ok(committed) => return assert_eq!(committed, Committed::default()),
            Err(CommitError::Settled) => return,
            Err(CommitError::Conflict) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// The process is killed at the step that the proxy sees; then we finish the event. Gives whose run it was.
async fn killed_at(point: &Point, subject: &str, skip: u32, window: Duration) -> String {
    let what = format!("{point:?} {subject} {skip}");
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    plant(&bus, window).await;
    put(&bus, "in.1", "event").await;
    let mut proxy = Proxy::before(server.port()).await;
    let mut child = child(&proxy).await;
    proxy.once(subject, skip, Act::Hold);
    let own = if *point == Point::Record { json!(null) } else { json!("own") };
    let writes = if *point == Point::Record { json!({}) } else { json!({ "k": "child" }) };
    child
        .tell(json!({
            "do": "commit", "cell": own, "writes": writes,
            "others": { "b": { "k": "child" }, "c": { "k": "child" }, "d": {} },
            "effects": [["out.a", "child"], ["out.b", "child"], ["out.a", "child"]],
        }))
        .await;
    soon("the step", proxy.acted(1)).await;
    child.kill().await;

    let (_, mut deliveries) = follow(&bus, &events()).await;
    let delivery = next(&mut deliveries).await;
    run(&bus, &delivery, point, "host").await;
    nothing_for(&mut deliveries, Duration::from_millis(1800)).await;
    let mut whose: Vec<String> = data(&out(&bus).await).iter().map(|d| (*d).to_owned()).collect();
    assert_eq!(whose.len(), 3, "{what}: {whose:?}");
    for name in ["b", "c"] {
        whose.push(held_by(&other(&bus, name).await));
    }
    if *point != Point::Record {
        whose.push(held_by(&other(&bus, "own").await));
    }
    whose.dedup();
    assert_eq!(whose.len(), 1, "{what}: all of one run");
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
    whose.remove(0)
}

async fn every_step(point: Point, window: Duration) {
    // The cells come first, then the marker, then the commit point, which is what commits.
    let last = if point == Point::Record { ("cd.c.", 0) } else { ("cd.s.", 2) };
    let before = [("cd.s.", 0), ("cd.s.", 1), ("cd.m.", 0), last];
    let after = [("out.", 0), ("out.", 1), ("$JS.ACK.IN.", 0)];
    let runs = before.map(|step| (step, "host")).into_iter().chain(after.map(|step| (step, "child")));
    let runs = runs.map(|((subject, skip), whose)| {
        let point = &point;
        async move { assert_eq!(killed_at(point, subject, skip, window).await, whose, "{subject} {skip}") }
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_of_a_batch_by_record_leaves_no_half_of_it() {
    every_step(Point::Record, WINDOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_of_a_batch_by_cell_leaves_no_half_of_it() {
    every_step(cell("own"), EXPIRED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answer_was_lost_is_found_out() {
    let mut cuts = Vec::new();
    for (point, last, skip) in [(Point::Record, "cd.c.", 0), (cell("own"), "cd.s.", 2)] {
        for (subject, skip, act) in
            [("cd.s.", 0, Act::CutBefore), (last, skip, Act::CutBefore), (last, skip, Act::CutAfter)]
        {
            let point = point.clone();
            cuts.push(async move {
                let server = Server::start().await;
                let direct = bus_at(&server.url()).await;
                plant(&direct, WINDOW).await;
                put(&direct, "in.1", "event").await;
                let mut proxy = Proxy::before(server.port()).await;
                let bus = bus_at(&proxy.url()).await;
                let (_, mut deliveries) = follow(&bus, &events()).await;
                let delivery = next(&mut deliveries).await;
                proxy.once(subject, skip, act);
                run(&bus, &delivery, &point, "us").await;
                soon("the cut", proxy.acted(1)).await;
                assert_eq!(data(&out(&direct).await), ["us"; 3], "{act:?} at {subject} of {point:?}");
                for name in ["b", "c"] {
                    assert_eq!(held_by(&other(&direct, name).await), "us");
                }
            });
        }
    }
    futures_util::future::join_all(cuts).await;
}

/// A process dies with effects of its event left in a cell; another event writes that cell before the first comes again.
async fn left_in_another_cell(window: Duration) {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    plant(&bus, window).await;
    put(&bus, "in.1", "event").await;
    let mut proxy = Proxy::before(server.port()).await;
    let mut child = child(&proxy).await;
    proxy.once("out.", 1, Act::Hold);
    child
        .tell(json!({
            "do": "commit", "cell": "b", "writes": { "k": "child" },
            "effects": [["out.a", "1"], ["out.b", "2"], ["out.a", "3"]],
        }))
        .await;
    soon("the step", proxy.acted(1)).await;
    child.kill().await;
    assert_eq!(data(&out(&bus).await), ["1"]);
    // Past the window, where it is short: ids are of no help then.
    tokio::time::sleep(window.min(EXPIRED) + Duration::from_millis(300)).await;

    // Another durable's, so that the dead process's event does not come first.
    stream(&bus, "ELSE", &["else"]).await;
    let (_, mut others) = follow(&bus, &consumer_spec("ELSE", "e", "else")).await;
    put(&bus, "else", "event").await;
    let delivery = next(&mut others).await;
    let Opened::Fresh(base) = bus.open(&delivery, &Point::Record).await.unwrap() else { panic!("settled") };
    let mut b = other(&bus, "b").await;
    assert_eq!(held_by(&b), "child");
    assert_eq!(data(&out(&bus).await), ["1", "2", "3"], "what was read has been told");
    b.writes.push(write("k", "else"));
    let change = Change { others: vec![b], ..effects(&[("out.c", "4")]) };
    assert_eq!(bus.commit(&delivery, base, change).await, Ok(Committed::default()));

    let (_, mut deliveries) = follow(&bus, &events()).await;
    let again = next(&mut deliveries).await;
    assert!(settled(&bus, &again, &cell("b")).await, "its own commit is still known there");
    assert_eq!(data(&out(&bus).await), ["1", "2", "3", "4"]);
    assert_eq!(held_by(&other(&bus, "b").await), "else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_cell_holds_unapplied_is_applied_before_it_is_written() {
    tokio::join!(left_in_another_cell(WINDOW), left_in_another_cell(EXPIRED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_the_midst_of_batches_stores_them_whole() {
    const ROUNDS: usize = 6;
    const EVENTS: usize = 24;
    let mut server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    plant(&bus, WINDOW).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in.>")).await;
    for round in 0..ROUNDS {
        let mut running = tokio::task::JoinSet::new();
        for n in 0..EVENTS {
            put(&bus, "in.1", "event").await;
            let delivery = next(&mut deliveries).await;
            let bus = bus.clone();
            running.spawn(async move { transfer(&bus, &delivery, round * EVENTS + n).await });
        }
        // Some have committed, others are on their way.
        for _ in 0..round {
            soon("a transfer", running.join_next()).await.unwrap().unwrap();
        }
        server.kill().await;
        server.up().await;
        soon("all transfers", running.join_all()).await;
        assert_sum(&bus).await;
        // Acks that the server lost with its life: these come again, and are known.
        drop(deliveries);
        let delete = bus.delete_durable("IN", "d").await;
        assert_eq!(delete, Ok(()));
        assert!(bus.delete_stream("IN").await.is_ok());
        stream(&bus, "IN", &["in.>"]).await;
        deliveries = follow(&bus, &consumer_spec("IN", "d", "in.>")).await.1;
    }
    let mut found: Vec<usize> = data(&out(&bus).await).iter().map(|n| n.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..ROUNDS * EVENTS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_while_the_server_has_as_many_open_as_it_takes() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    plant(&bus, WINDOW).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in.>")).await;
    let client = server.client().await;
    for n in 0..50 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("open {n}"));
        headers.insert("Nats-Batch-Sequence", "1");
        client.request_with_headers("cd.s.test.x", headers, "".into()).await.unwrap();
    }
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let committing = tokio::spawn({
        let bus = bus.clone();
        async move { run(&bus, &delivery, &Point::Record, "us").await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!committing.is_finished());
    // The server gives up batches after 10 s in which nothing came.
    soon("the commit", committing).await.unwrap();
    assert_eq!(data(&out(&bus).await), ["us"; 3]);
    set(&bus, &mut deliveries, &["b"], "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_on_three_nodes_survive_the_leaders_death() {
    const EVENTS: usize = 60;
    let mut cluster = Cluster::start(3).await;
    let connect = async |url: &String| {
        let config = NatsConfig { urls: vec![url.clone()], replicas: 3, ..NatsConfig::new(url) };
        connect(config, undeliverable()).await.expect("a connection")
    };
    let urls = cluster.urls();
    let leader = {
        let bus = connect(&urls[0]).await;
        plant(&bus, WINDOW).await;
        cluster.leader("COFFERDAM").await
    };
    let buses = [connect(&urls[(leader + 1) % 3]).await, connect(&urls[(leader + 2) % 3]).await];
    let (_, mut deliveries) = follow(&buses[0], &consumer_spec("IN", "d", "in.>")).await;
    let mut taken = Vec::new();
    for _ in 0..EVENTS {
        put(&buses[0], "in.1", "event").await;
        taken.push(next(&mut deliveries).await);
    }
    let mut running = tokio::task::JoinSet::new();
    for (seed, delivery) in taken.into_iter().enumerate() {
        let bus = buses[seed % 2].clone();
        running.spawn(async move { transfer(&bus, &delivery, seed).await });
    }
    for _ in 0..5 {
        soon("a transfer", running.join_next()).await.unwrap().unwrap();
    }
    cluster.node(leader).kill().await;
    soon("all transfers", running.join_all()).await;
    cluster.node(leader).up().await;
    cluster.ready().await;
    assert_sum(&buses[0]).await;
    let mut found: Vec<usize> = data(&out(&buses[1]).await).iter().map(|n| n.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..EVENTS).collect::<Vec<_>>());
}
