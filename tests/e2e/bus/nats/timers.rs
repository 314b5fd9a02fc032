//! Timers on NATS: a crash or a cut at every step from the commit to the firing, firings that come twice, and what is
//! left behind.

use std::time::Duration;

use harness::proxy::{Act, Proxy};
use serde_json::Value;

use super::super::{
    commits::{commit, out, plant},
    timers::{after, timer, timers},
    *,
};

/// What a host sends, from the commit to the end of the timer.
const STEPS: [(&str, Option<&str>); 6] = [
    ("the commit", None),
    ("the schedule", Some("cd.t.")),
    ("the mark", Some("cd.t.")),
    ("the message", Some("out.")),
    ("the end of what was due", Some("$JS.API.STREAM.MSG.DELETE.COFFERDAM")),
    ("the ack of what was due", Some("$JS.ACK.COFFERDAM.")),
];

fn events() -> ConsumerSpec {
    ConsumerSpec { ack_wait: Duration::from_millis(1500), ..consumer_spec("IN", "d", "in.>") }
}

async fn outs(bus: &Arc<dyn Bus>) -> Box<dyn Reader> {
    reader(bus, "OUT", "out.>", Start::Sequence(0)).await
}

/// A host sets a timer and forwards it, and is cut off for good at `step`; another finishes.
async fn lost_at(step: &str, what: &str, skip: u32, point: Point) {
    let server = Server::start().await;
    let mut proxy = Proxy::before(server.port()).await;
    let first = bus_at(&proxy.url()).await;
    stream(&first, "IN", &["in.>"]).await;
    stream(&first, "OUT", &["out.>"]).await;
    put(&first, "in.1", "event").await;
    let (_, mut deliveries) = follow(&first, &events()).await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&first, &delivery, &point).await;
    proxy.once(what, skip, Act::Hold);
    let run = tokio::spawn(async move {
        let set = timers(&[timer("t", after(Duration::from_millis(500)), "out.a", "first")]);
        let _host = (first.commit(&delivery, base, set).await, first);
        std::future::pending::<()>().await;
    });
    soon(step, proxy.acted(1)).await;
    run.abort();
    drop(deliveries);

    let second = bus_at(&server.url()).await;
    let mut outs = outs(&second).await;
    let finish = async {
        let (_, mut deliveries) = follow(&second, &events()).await;
        loop {
            let delivery = deliveries.next().await.unwrap();
            if let Opened::Fresh(base) = second.open(&delivery, &point).await.unwrap() {
                let set = timers(&[timer("t", after(Duration::ZERO), "out.a", "second")]);
                second.commit(&delivery, base, set).await.unwrap();
            }
        }
    };
    let watch = async {
        let fired = soon("a firing", outs.next()).await.unwrap();
        let expected = if step == "the commit" { "second" } else { "first" };
        assert_eq!(fired.message.data, expected, "{step}");
        // What the first host had taken comes to the second after the ack wait.
        emptied(&second, "COFFERDAM", "cd.d.>").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(out(&second).await.len(), 1, "{step}");
    };
    tokio::select! {
        () = finish => {}
        () = watch => {}
    }
}

async fn every_step(point: Point) {
    let commit = if point == Point::Record { "cd.c." } else { "cd.s." };
    let runs = STEPS.map(|(step, what)| {
        let skip = u32::from(step == "the mark");
        lost_at(step, what.unwrap_or(commit), skip, point.clone())
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_of_a_host_lost_at_any_step_fires_once_by_cell() {
    every_step(cell("c")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_of_a_host_lost_at_any_step_fires_once_by_record() {
    every_step(Point::Record).await;
}

/// The connection is cut at a step, before or after the server has seen it, and comes back.
async fn cut_at(what: &str, skip: u32, act: Act) {
    let server = Server::start().await;
    let mut proxy = Proxy::before(server.port()).await;
    let bus = bus_at(&proxy.url()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    proxy.once(what, skip, act);
    let set = ["a", "b"].map(|id| timer(id, after(Duration::from_millis(500)), "out.a", id));
    commit(&bus, &delivery, base, timers(&set)).await.unwrap();
    let mut outs = outs(&bus).await;
    let mut fired = Vec::new();
    for _ in 0..2 {
        let firing = soon(&format!("a firing ({act:?} at {what} {skip})"), outs.next()).await;
        fired.push(firing.unwrap().message.data);
    }
    fired.sort();
    assert_eq!(fired, ["a", "b"], "{act:?} at {what}");
    soon("the cut", proxy.acted(1)).await;
    if let Ok(more) = tokio::time::timeout(Duration::from_secs(2), outs.next()).await {
        panic!("{act:?} at {what}: {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_fires_once_over_a_connection_cut_at_any_step() {
    let mut cuts = Vec::new();
    for act in [Act::CutBefore, Act::CutAfter] {
        for (what, skip) in [
            ("cd.c.", 0),
            ("cd.t.", 0),
            ("cd.t.", 2),
            ("out.", 0),
            ("$JS.API.STREAM.MSG.DELETE.COFFERDAM", 0),
            ("$JS.ACK.COFFERDAM.", 0),
        ] {
            cuts.push(cut_at(what, skip, act));
        }
    }
    futures_util::future::join_all(cuts).await;
}

/// As a commit sets it, by hand: what a late run of its event, or a server that forgets, may do.
async fn schedule(client: &async_nats::Client, id: &str, body: Bytes) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2020-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", format!("cd.d.{id}").as_str());
    let answer = client.request_with_headers(format!("cd.t.{id}"), headers, body).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null(), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_fires_again_stores_nothing_again() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    // Forgets ids after a second.
    let window = Some(Duration::from_secs(1));
    bus.ensure_stream(&StreamSpec { duplicate_window: window, ..stream_spec("OUT", &["out.>"]) })
        .await
        .unwrap();
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    let far = after(Duration::from_secs(3600));
    let set = ["fired", "cancelled"].map(|id| timer(id, far, "out.a", id));
    commit(&bus, &delivery, base, timers(&set)).await.unwrap();
    let found = held(&bus, "COFFERDAM", "cd.t.>").await;
    let body = |id: &str| {
        let subject = format!("cd.t.{id}");
        found.iter().find(|s| s.message.subject == subject).unwrap().message.data.clone()
    };
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    let change = Change { cancels: vec!["cancelled".into()], ..Change::default() };
    commit(&bus, &delivery, base, change).await.unwrap();

    let client = server.client().await;
    let mut outs = outs(&bus).await;
    // Fired in the server's hands, thrice; the last time the stream has long forgotten the id.
    schedule(&client, "fired", body("fired")).await;
    assert_eq!(soon("a firing", outs.next()).await.unwrap().message.data, "fired");
    for pause in [0, 1500] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let fired = client.request("cd.d.fired", body("fired")).await.unwrap();
        assert!(!fired.payload.is_empty());
        // Of one that was cancelled.
        client.request("cd.d.cancelled", body("cancelled")).await.unwrap();
    }
    if let Ok(more) = tokio::time::timeout(Duration::from_secs(1), outs.next()).await {
        panic!("{more:?}");
    }
    assert_eq!(stored(&bus, "COFFERDAM", "cd.d.>").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_timer_leaves_behind_ends_by_itself() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    let hour = after(Duration::from_secs(3600));
    let set = timers(&[timer("fired", 0, "out.a", "x"), timer("cancelled", hour, "out.a", "x")]);
    commit(&bus, &delivery, base, set).await.unwrap();
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    let change = Change { cancels: vec!["cancelled".into(), "unknown".into()], ..Change::default() };
    commit(&bus, &delivery, base, change).await.unwrap();
    soon("a firing", outs(&bus).await.next()).await.unwrap();
    emptied(&bus, "COFFERDAM", "cd.d.>").await;
    let marks = held(&bus, "COFFERDAM", "cd.t.>").await;
    let mut lives: Vec<(&str, u64)> = marks
        .iter()
        .map(|mark| {
            let ttl = mark.message.headers.iter().find(|(name, _)| name == "Nats-TTL").unwrap();
            assert!(mark.message.data.is_empty());
            (mark.message.subject.as_str(), ttl.1.strip_suffix('s').unwrap().parse().unwrap())
        })
        .collect();
    lives.sort_unstable();
    let day = 24 * 60 * 60;
    assert_eq!((lives[1], lives[2]), (("cd.t.fired", day), ("cd.t.unknown", day)));
    // A day from when it would have fired.
    let (subject, life) = lives[0];
    assert!(subject == "cd.t.cancelled" && life > day + 3500 && life <= day + 3600, "{life}");
}

/// The server takes a cancel, and a firing that was on its way takes the cancel's mark along (about once in a thousand of
/// these).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_cancelled_at_its_very_time_has_fired_or_never_fires() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) = plant(&bus).await;
    let at = after(Duration::from_secs(3));
    let ids: Vec<String> = (0..400).map(|n| format!("t{n}")).collect();
    let each = |n: usize| at + n as u64 * 500_000;
    let set: Vec<_> = ids.iter().enumerate().map(|(n, id)| timer(id, each(n), "out.a", id)).collect();
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &Point::Record).await;
    commit(&bus, &delivery, base, timers(&set)).await.unwrap();
    let mut ready = Vec::new();
    for id in &ids {
        put(&bus, "in.1", "event").await;
        let delivery = next(&mut deliveries).await;
        let base = fresh(&bus, &delivery, &Point::Record).await;
        ready.push((delivery, base, Change { cancels: vec![id.clone()], ..Change::default() }));
    }
    let runs = ready.into_iter().enumerate().map(|(n, (delivery, base, change))| {
        let bus = bus.clone();
        async move {
            // Somewhat before, somewhat after.
            let wait = (each(n) + n as u64 % 16 * 1_000_000).saturating_sub(after(Duration::from_millis(2)));
            tokio::time::sleep(Duration::from_nanos(wait)).await;
            let id = change.cancels[0].clone();
            bus.commit(&delivery, base, change).await.unwrap();
            let mark = bus.last(&format!("cd.t.{id}")).await.unwrap().expect("a mark");
            mark.message.headers.contains(&("Cofferdam-Timer".into(), "fired".into())).then_some(id)
        }
    });
    let mut marked: Vec<String> = futures_util::future::join_all(runs).await.into_iter().flatten().collect();
    emptied(&bus, "COFFERDAM", "cd.d.>").await;
    let mut fired: Vec<String> = out(&bus).await.into_iter().map(|(_, id)| id).collect();
    marked.sort();
    fired.sort();
    assert_eq!(fired, marked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_long_ago_is_no_dead_letter_when_its_stream_has_forgotten_it() {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    let window = Some(Duration::from_secs(1));
    let brief =
        StreamSpec { duplicate_window: window, max_messages: Some(1), ..stream_spec("OUT", &["out.>"]) };
    bus.ensure_stream(&brief).await.unwrap();
    let (_, mut deliveries) = plant(&bus).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &cell("c")).await;
    let change = Change { timers: vec![timer("t", 0, "out.t", "t")], ..effects(&[("out.a", "1")]) };
    commit(&bus, &delivery, base, change).await.unwrap();
    let mut outs = outs(&bus).await;
    while soon("a firing", outs.next()).await.unwrap().message.data != "t" {}
    put(&bus, "out.b", "newer").await;
    deliveries.close().await;
    bus.flush().await;
    drop((bus, deliveries));
    tokio::time::sleep(Duration::from_millis(1100)).await;

    // A process that has not seen the cell.
    let bus = bus_at(&server.url()).await;
    let (_, mut deliveries) = follow(&bus, &consumer_spec("IN", "d", "in.>")).await;
    put(&bus, "in.1", "event").await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &cell("c")).await;
    commit(&bus, &delivery, base, effects(&[("out.a", "2")])).await.unwrap();
    assert_eq!(data(&out(&bus).await), ["2"]);
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_dropped_forwards_no_more() {
    let server = Server::start().await;
    let client = server.client().await;
    let waiting = async || {
        let info =
            client.request("$JS.API.CONSUMER.INFO.COFFERDAM.cofferdam-timers", "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        info["num_waiting"].as_u64().unwrap()
    };
    let reach = async |count: u64| {
        wait_for("the forwarders", async || (waiting().await == count).then_some(())).await;
    };
    let (one, two) = (bus_at(&server.url()).await, bus_at(&server.url()).await);
    reach(2).await;
    drop(one);
    reach(1).await;
    drop(two);
    reach(0).await;
}
