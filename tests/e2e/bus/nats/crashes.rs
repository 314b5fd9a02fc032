//! A crash or a cut at every step of a commit: in each case the effects of one run are there once, and the event ends.
//! A proxy before the server picks the step; a process is killed there, or its connection is cut.

use std::time::Duration;

use cofferdam_bus::{CommitError, Committed, StreamSpec};
use harness::{
    child::Driven,
    proxy::{Act, Proxy},
};
use serde_json::{Value, json};

use super::super::*;

const CHILD: &str = env!("CARGO_BIN_EXE_bus-child");
/// Where a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    BeforeTheCommit,
    /// The server has it, the process does not know.
    CommitUnanswered,
    BeforeTheFirstEffect,
    BetweenEffects,
    /// The server has it, the process does not know.
    LastEffectUnanswered,
    /// The process takes it for done.
    AckLost,
}

/// What the proxy is to do, by place and point.
fn held(at: At, point: &Point) -> (&'static str, u32, Act) {
    let (commit, last) = match point {
        Point::Cell { .. } => ("cd.s.", 2),
        Point::Record => ("cd.c.", 2),
        Point::Publish => ("out.", 0),
    };
    match at {
        At::BeforeTheCommit => (commit, 0, Act::Hold),
        At::CommitUnanswered => (commit, 0, Act::HoldAfter),
        At::BeforeTheFirstEffect => ("out.", 0, Act::Hold),
        At::BetweenEffects => ("out.", 1, Act::Hold),
        At::LastEffectUnanswered => ("out.", last, Act::HoldAfter),
        At::AckLost => ("$JS.ACK.IN.", 0, Act::Hold),
    }
}

fn child_command(point: &Point) -> Value {
    let effects = json!([["out.a", "1"], ["out.b", "2"], ["out.a", "3"]]);
    match point {
        Point::Cell { cell, .. } => {
            json!({ "do": "commit", "cell": cell, "writes": { "k": "child" }, "effects": effects })
        }
        Point::Record => json!({ "do": "commit", "effects": effects }),
        Point::Publish => json!({ "do": "commit", "publish": true, "effects": [["out.a", "1"]] }),
    }
}

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

/// A process is killed at a step of its commit; we finish the event; gives what was stored and the cell's value.
async fn killed_at(at: At, point: Point, window: Duration) -> (Vec<String>, Option<String>) {
    let server = Server::start().await;
    let bus = bus_at(&server.url()).await;
    plant(&bus, window).await;
    put(&bus, "in.1", "event").await;

    let mut proxy = Proxy::before(server.port()).await;
    let mut child = Driven::start(CHILD, &[&proxy.url()]);
    child
        .ask(json!({ "do": "follow", "stream": "IN", "durable": "d", "filter": "in.>", "ack_wait_ms": 1500 }))
        .await;
    child.ask(json!({ "do": "take" })).await;
    let (subject, skip, act) = held(at, &point);
    proxy.once(subject, skip, act);
    child.tell(child_command(&point)).await;
    soon("the step", proxy.acted(1)).await;
    child.kill().await;

    // Redelivered by the ack wait, which is past the window where that is short.
    let (_, mut deliveries) = follow(&bus, &events()).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.count, 2);
    match bus.open(&delivery, &point).await.unwrap() {
        Opened::Settled => {}
        Opened::Fresh(base) => {
            let mut change = effects(&[("out.a", "host 1"), ("out.b", "host 2"), ("out.a", "host 3")]);
            match point {
                Point::Publish => change.effects.truncate(1),
                Point::Cell { .. } => change.writes.push(write("k", "host")),
                Point::Record => {}
            }
            let outcome = bus.commit(&delivery, base, change).await;
            assert!(matches!(outcome, Ok(_) | Err(CommitError::Settled)), "{outcome:?}");
        }
    }
    nothing_for(&mut deliveries, Duration::from_millis(1800)).await;

    put(&bus, "in.1", "probe").await;
    let probe = next(&mut deliveries).await;
    let value = match &point {
        Point::Cell { .. } => value(&fresh(&bus, &probe, &point).await, "k").map(str::to_owned),
        _ => None,
    };
    let mut found = stored(&bus, "OUT", "out.>").await;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(stored(&bus, "DEAD", "dead.>").await, []);
    (found.into_iter().map(|(subject, data)| format!("{subject} {data}")).collect(), value)
}

/// Before the commit nothing of the killed run is there; after it, all of it, and nothing of the second run.
async fn killed_and_whole(at: At, point: Point, window: Duration) {
    let (found, value) = killed_at(at, point.clone(), window).await;
    let first = at != At::BeforeTheCommit;
    match (point, first) {
        (Point::Publish, true) => assert_eq!(found, ["out.a 1"], "{at:?}"),
        (Point::Publish, false) => assert_eq!(found, ["out.a host 1"], "{at:?}"),
        (_, true) => assert_eq!(found, ["out.a 1", "out.a 3", "out.b 2"], "{at:?}"),
        (_, false) => assert_eq!(found, ["out.a host 1", "out.a host 3", "out.b host 2"], "{at:?}"),
    }
    if let Some(value) = value {
        assert_eq!(value, if first { "child" } else { "host" }, "{at:?}");
    }
}

const WINDOW: Duration = Duration::from_secs(120);
/// Shorter than the ack wait: forgotten when the event comes again.
const EXPIRED: Duration = Duration::from_secs(1);

/// A test of each place, of a target that has forgotten the ids by the time the event comes again.
macro_rules! kill_points {
    ($point:expr, $window:expr, $($name:ident: $at:expr),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::killed_and_whole($at, $point, $window).await;
            }
        )*
    };
}

mod by_cell {
    use super::{super::super::cell, *};

    kill_points![cell("c"), EXPIRED,
        killed_before_the_commit: At::BeforeTheCommit,
        killed_when_the_commit_is_sent_and_its_answer_not_seen: At::CommitUnanswered,
        killed_after_the_commit_before_the_first_effect: At::BeforeTheFirstEffect,
        killed_between_effects: At::BetweenEffects,
        killed_after_the_last_effect_before_the_ack: At::LastEffectUnanswered,
        killed_when_the_ack_is_sent_and_lost: At::AckLost,
    ];
}

mod by_record {
    use super::*;

    kill_points![Point::Record, EXPIRED,
        killed_before_the_commit: At::BeforeTheCommit,
        killed_when_the_commit_is_sent_and_its_answer_not_seen: At::CommitUnanswered,
        killed_after_the_commit_before_the_first_effect: At::BeforeTheFirstEffect,
        killed_between_effects: At::BetweenEffects,
        killed_after_the_last_effect_before_the_ack: At::LastEffectUnanswered,
        killed_when_the_ack_is_sent_and_lost: At::AckLost,
    ];
}

/// Its one effect is its commit, and only the window of message ids knows it.
mod by_publish {
    use super::*;

    kill_points![Point::Publish, WINDOW,
        killed_before_the_commit: At::BeforeTheCommit,
        killed_when_the_commit_is_sent_and_its_answer_not_seen: At::CommitUnanswered,
        killed_when_the_ack_is_sent_and_lost: At::AckLost,
    ];
}

/// The window has not passed, so ids alone must do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_step_within_the_window_of_message_ids() {
    let places = [At::BeforeTheCommit, At::CommitUnanswered, At::BetweenEffects, At::AckLost];
    let points = [cell("c"), Point::Record];
    let runs =
        places.into_iter().flat_map(|at| points.iter().map(move |p| killed_and_whole(at, p.clone(), WINDOW)));
    futures_util::future::join_all(runs).await;
}

/// The connection is cut at an operation of the commit, once before and once after the server has seen it.
async fn cut_at(subject: &str, skip: u32, act: Act, point: Point) {
    let server = Server::start().await;
    let direct = bus_at(&server.url()).await;
    plant(&direct, WINDOW).await;
    put(&direct, "in.1", "event").await;
    let mut proxy = Proxy::before(server.port()).await;
    let bus = bus_at(&proxy.url()).await;
    let (_, mut deliveries) = follow(&bus, &events()).await;
    let delivery = next(&mut deliveries).await;
    let base = fresh(&bus, &delivery, &point).await;
    let mut change = effects(&[("out.a", "1"), ("out.b", "2"), ("out.a", "3")]);
    match point {
        Point::Publish => change.effects.truncate(1),
        Point::Cell { .. } => change.writes.push(write("k", "v")),
        Point::Record => {}
    }
    proxy.once(subject, skip, act);
    let outcome = soon("a commit", bus.commit(&delivery, base, change)).await;
    assert_eq!(outcome, Ok(Committed::default()), "{act:?} at {subject} of {point:?}");
    soon("the cut", proxy.acted(1)).await;
    let mut found = stored(&direct, "OUT", "out.>").await;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: &[&str] = if point == Point::Publish { &["1"] } else { &["1", "3", "2"] };
    assert_eq!(data(&found), expected, "{act:?} at {subject} of {point:?}");
    // Its ack may have been lost with the connection; then it comes again and is known.
    put(&direct, "in.1", "probe").await;
    loop {
        let again = next(&mut deliveries).await;
        if text(&again) == "probe" {
            break;
        }
        if point != Point::Publish {
            assert!(settled(&bus, &again, &point).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_finds_out_what_became_of_a_write_whose_answer_was_lost() {
    let mut cuts = Vec::new();
    for act in [Act::CutBefore, Act::CutAfter] {
        for (subject, skip, point) in [
            ("cd.s.", 0, cell("c")),
            ("out.", 0, cell("c")),
            ("out.", 2, cell("c")),
            ("cd.c.", 0, Point::Record),
            ("out.", 1, Point::Record),
            ("out.", 0, Point::Publish),
        ] {
            cuts.push(cut_at(subject, skip, act, point));
        }
    }
    futures_util::future::join_all(cuts).await;
}
