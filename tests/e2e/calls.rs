//! Calls to upstreams: which the host repeats, which key they carry, and that a `once` call has one answer, whoever is
//! killed in between.

use std::{collections::BTreeSet, time::Duration};

use harness::{
    counting::{Counted, Counting, Reply, SERVICE},
    daemon::Daemon,
    fleet::free_address,
    gate::Gate,
    metrics::Scrape,
    plugin::Plugin,
    proxy::{Act, Proxy},
    setup::Setup,
    way_in::body,
    world::World,
};
use serde_json::{Value, json};
use tonic::Code;

/// Marked in the configuration; other methods are not.
const ONCE: &str = "Once";
const IDEMPOTENT: &str = "Idempotent";
const PLAIN: &str = "Plain";

/// A daemon with a guest that takes `test.in`, calls and publishes what came of it on `test.seen`.
fn caller(setup: Setup, upstream: &str) -> Setup {
    caller_on(setup, upstream, ["test.in", "test.seen"], "")
}

/// With more lines of its subscription.
fn caller_on(setup: Setup, upstream: &str, [from, to]: [&str; 2], lines: &str) -> Setup {
    let plugin = Plugin::fixture("calls")
        .named("caller")
        .on(from, &format!("ack-wait = \"2s\"\nmax-attempts = 3\nbackoff = \"50ms\"\n{lines}"))
        .may("rpc", &[&format!("counting/{SERVICE}/*")])
        .reports_to(to);
    setup
        .plugin(plugin)
        .upstream("counting", upstream)
        .with("upstreams.counting.timeout", "30s")
        .with("upstreams.counting.once", vec![format!("{SERVICE}/{ONCE}")])
        .with("upstreams.counting.idempotent", vec![format!("{SERVICE}/{IDEMPOTENT}")])
}

/// An event that lets the guest make these calls.
fn calls(methods: &[&str]) -> Value {
    let call = |method: &&str| json!({ "upstream": "counting", "method": format!("{SERVICE}/{method}"), "request": "r" });
    json!({ "calls": methods.iter().map(call).collect::<Vec<_>>() })
}

/// The same, and the first `retries` attempts fail after them.
fn retried(methods: &[&str], retries: u32) -> Value {
    let mut told = calls(methods);
    told["retries"] = retries.into();
    told
}

/// What the one event's one report says of its calls.
async fn seen(world: &World) -> Vec<Value> {
    world.wait_stored("test.seen", 1).await;
    world.quiet().await;
    let all = world.stored("test.seen").await;
    let [report] = all.as_slice() else { panic!("{all:?}") };
    report.json()["calls"].as_array().expect("calls").clone()
}

fn answers(calls: &[Value]) -> Vec<&str> {
    calls.iter().map(|call| call["answer"].as_str().unwrap_or_else(|| panic!("no answer: {call}"))).collect()
}

fn keys(calls: &[Counted]) -> BTreeSet<&str> {
    calls.iter().map(|call| call.key.as_str()).collect()
}

#[tokio::test]
async fn an_answer_that_was_recorded_is_the_answer_after_a_kill() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(PLAIN, [Reply::Hold]);
    let setup = caller(world.setup(), &upstream.address);
    let mut daemon = setup.start().await;
    world.publish("test.in", calls(&[ONCE, PLAIN])).await;
    // The guest has the first answer when it makes the second call.
    upstream.wait_calls(PLAIN, 1).await;
    daemon.kill().await;
    let recorded = world.stored("cd.a.>").await;
    let [record] = recorded.as_slice() else { panic!("{recorded:?}") };
    assert_eq!((&record.data[..], record.header("Nats-TTL")), (&b"answer-1"[..], Some("604800s")));

    upstream.release();
    let daemon = setup.start().await;
    assert_eq!(answers(&seen(&world).await), ["answer-1", "answer-2"]);
    assert_eq!(upstream.calls(ONCE).len(), 1, "what is recorded is not asked again");
    assert_eq!(keys(&upstream.calls(PLAIN)).len(), 1, "one call, one key: {:?}", upstream.calls(PLAIN));
    let recalled = daemon.scrape().await.sum("cofferdam_rpc_recalled_total", &[("upstream", "counting")]);
    assert_eq!(recalled, 1.0);
}

#[tokio::test]
async fn the_embedded_bus_keeps_the_answer_over_a_kill() {
    let upstream = Counting::start().await;
    upstream.next(PLAIN, [Reply::Hold]);
    // A stream that the daemon makes by itself.
    let setup = caller_on(Setup::local(), &upstream.address, ["cofferdam.asked", "cofferdam.told"], "");
    let mut daemon = setup.start().await;
    daemon.publish("cofferdam.asked", calls(&[ONCE, PLAIN])).await;
    upstream.wait_calls(PLAIN, 1).await;
    daemon.kill().await;
    upstream.release();

    let daemon = setup.start().await;
    let told = daemon.wait_stored("cofferdam.told", 1).await;
    let report = body(&told[0]);
    assert_eq!(answers(report["calls"].as_array().expect("calls")), ["answer-1", "answer-2"]);
    assert_eq!(upstream.calls(ONCE).len(), 1);
}

#[tokio::test]
async fn a_once_call_that_was_cut_off_is_made_again_under_its_key() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Hold]);
    let setup = caller(world.setup(), &upstream.address);
    let mut daemon = setup.start().await;
    world.publish("test.in", calls(&[ONCE])).await;
    upstream.wait_calls(ONCE, 1).await;
    daemon.kill().await;
    let _daemon = setup.start().await;
    assert_eq!(answers(&seen(&world).await), ["answer-2"]);
    let made = upstream.calls(ONCE);
    assert!(made.len() == 2 && keys(&made).len() == 1, "{made:?}");
}

#[tokio::test]
async fn an_answer_that_was_not_recorded_is_nobodys() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    let mut proxy = Proxy::before(world.nats.port()).await;
    let behind = caller(Setup::new(&proxy.url()), &upstream.address);
    let mut daemon = behind.start().await;
    // After the claim.
    proxy.once("cd.a.", 1, Act::Hold);
    world.publish("test.in", calls(&[ONCE])).await;
    proxy.acted(1).await;
    daemon.kill().await;
    assert_eq!((upstream.calls(ONCE).len(), world.count("cd.a.>").await), (1, 1));
    // The claim of the dead is waited out.
    let _daemon =
        caller(world.setup(), &upstream.address).with("upstreams.counting.timeout", "3s").start().await;
    assert_eq!(answers(&seen(&world).await), ["answer-2"]);
    let made = upstream.calls(ONCE);
    assert!(made.len() == 2 && keys(&made).len() == 1, "{made:?}");
}

#[tokio::test]
async fn a_record_whose_outcome_is_unknown_is_looked_for_or_written_again() {
    // The claim, and the answer.
    for (skip, act) in [(0, Act::CutAfter), (0, Act::CutBefore), (1, Act::CutAfter), (1, Act::CutBefore)] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        let mut proxy = Proxy::before(world.nats.port()).await;
        let _daemon = caller(Setup::new(&proxy.url()), &upstream.address).start().await;
        proxy.once("cd.a.", skip, act);
        world.publish("test.in", calls(&[ONCE])).await;
        proxy.acted(1).await;
        assert_eq!(answers(&seen(&world).await), ["answer-1"], "{act:?}");
        assert_eq!((upstream.calls(ONCE).len(), world.count("cd.a.>").await), (1, 1), "{act:?}");
    }
}

#[tokio::test]
async fn an_answer_waits_for_a_bus_that_is_down() {
    let (mut world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Hold]);
    let daemon = caller(world.setup(), &upstream.address).start().await;
    world.publish("test.in", calls(&[ONCE])).await;
    upstream.wait_calls(ONCE, 1).await;
    world.nats.stop().await;
    daemon.wait_ready(503).await;
    upstream.release();
    world.nats.up().await;
    assert_eq!(answers(&seen(&world).await), ["answer-1"]);
    assert_eq!(upstream.calls(ONCE).len(), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_in_time_is_not_shown() {
    let (mut world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Hold]);
    let setup = caller(world.setup(), &upstream.address).with("limits.wall", "8s");
    let daemon = setup.start().await;
    world.publish("test.in", calls(&[ONCE])).await;
    upstream.wait_calls(ONCE, 1).await;
    world.nats.stop().await;
    daemon.wait_ready(503).await;
    upstream.release();
    let told = daemon.says("the answer can't be recorded now").await.to_string();
    assert!(told.contains("UNAVAILABLE"), "{told}");
    assert!(!daemon.log().text().contains("answer-1"), "{}", daemon.log().text());
}

#[tokio::test]
async fn a_call_that_another_host_is_at_is_waited_for() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Hold]);
    let first = caller(world.setup(), &upstream.address).start().await;
    world.publish("test.in", calls(&[ONCE])).await;
    upstream.wait_calls(ONCE, 1).await;
    first.pause();
    let other = caller(world.setup(), &upstream.address).start().await;
    other
        .moved("the event is here", &Scrape::default(), |now| {
            now.sum("cofferdam_events_in_flight", &[]) == 1.0
        })
        .await;
    first.resume();
    upstream.release();
    assert_eq!(answers(&seen(&world).await), ["answer-1"]);
    assert_eq!(upstream.calls(ONCE).len(), 1);
}

#[tokio::test]
async fn two_hosts_at_one_event_see_one_answer() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Hold]);
    let frozen = caller(world.setup(), &upstream.address);
    let frozen = frozen.start().await;
    world.publish("test.in", calls(&[ONCE])).await;
    upstream.wait_calls(ONCE, 1).await;
    frozen.pause();
    // It waits out the claim of the first.
    let other = caller(world.setup(), &upstream.address).with("upstreams.counting.timeout", "3s");
    let _other = other.start().await;
    world.wait_stored("test.seen", 1).await;
    upstream.release();
    frozen.resume();
    // What the frozen run got was answered to it, and is not what was recorded meanwhile.
    went(&frozen, "answer-2").await;
    assert_eq!(answers(&seen(&world).await), ["answer-2"]);
    let made = upstream.calls(ONCE);
    assert!(made.len() == 2 && keys(&made).len() == 1, "{made:?}");
}

#[tokio::test]
async fn an_event_that_is_let_go_keeps_its_place_before_the_next_of_its_key() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(PLAIN, [Reply::Hold]);
    let subjects = ["test.in", "test.seen"];
    let setup = caller_on(world.setup(), &upstream.address, subjects, "order-key = \"/key\"");
    let daemon = setup.start().await;
    let keyed = |methods| {
        let mut told = calls(methods);
        told["key"] = "k".into();
        told
    };
    // Frozen for longer than the ack wait: what is there when it goes on has perhaps been given to another host.
    daemon.pause();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.publish("test.in", keyed(&[PLAIN, ONCE])).await;
    daemon.resume();
    upstream.wait_calls(PLAIN, 1).await;
    // What comes so late after that is this host's for certain.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.publish("test.in", keyed(&[ONCE])).await;
    daemon
        .moved("both are here", &Scrape::default(), |now| now.sum("cofferdam_events_in_flight", &[]) == 2.0)
        .await;
    upstream.release();
    daemon.says("away for longer than the ack wait").await;
    let reports = world.wait_stored("test.seen", 2).await;
    let made: Vec<usize> =
        reports.iter().map(|report| report.json()["calls"].as_array().expect("calls").len()).collect();
    assert_eq!(made, [2, 1], "the first event first");
    assert_eq!(upstream.calls(ONCE).len(), 2);
}

/// Waits until the guest has logged this of a call.
async fn went(daemon: &Daemon, how: &str) {
    daemon.logged(how, |line| line.to_string().contains(&format!("\\\"{how}\\\""))).await;
}

#[tokio::test]
async fn a_later_attempt_gets_the_answer_of_the_first() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    let _daemon = caller(world.setup(), &upstream.address).start().await;
    world.publish("test.in", retried(&[ONCE, ONCE], 2)).await;
    assert_eq!(
        answers(&seen(&world).await),
        ["answer-1", "answer-2"],
        "equal requests are calls of their own"
    );
    let made = upstream.calls(ONCE);
    assert!(made.len() == 2 && keys(&made).len() == 2, "{made:?}");
}

#[tokio::test]
async fn a_call_has_the_same_key_in_every_attempt() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    let _daemon = caller(world.setup(), &upstream.address).start().await;
    world.publish("test.in", retried(&[PLAIN, PLAIN], 1)).await;
    seen(&world).await;
    let made: Vec<_> = upstream.calls(PLAIN).into_iter().map(|call| call.key).collect();
    let [a, b, c, d] = made.as_slice() else { panic!("{made:?}") };
    assert!(a == c && b == d && a != b, "{made:?}");
}

#[tokio::test]
async fn an_answer_too_large_to_record_is_the_same_error_in_every_run() {
    // More than the bus takes, and more than the host reads.
    for length in [2 << 20, 5 << 20] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        upstream.next(ONCE, [Reply::Bytes(length)]);
        let _daemon = caller(world.setup(), &upstream.address).start().await;
        world.publish("test.in", retried(&[ONCE], 1)).await;
        let went = seen(&world).await.remove(0);
        assert_eq!((&went["code"], &went["local"]), (&json!("RESOURCE_EXHAUSTED"), &json!(true)), "{went}");
        assert!(went["message"].as_str().is_some_and(|m| m.contains("too large to be recorded")), "{went}");
        assert_eq!(upstream.calls(ONCE).len(), 1, "it was done");
    }
}

#[tokio::test]
async fn who_asks_is_told_of_an_unknown_outcome_and_decides() {
    for anyway in [false, true] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        upstream.next(ONCE, [Reply::Hold]);
        let setup =
            caller(world.setup(), &upstream.address).with("upstreams.counting.unknown-outcome", "ask");
        let mut daemon = setup.start().await;
        let mut told = calls(&[ONCE]);
        told["calls"][0]["anyway"] = anyway.into();
        world.publish("test.in", told).await;
        upstream.wait_calls(ONCE, 1).await;
        daemon.kill().await;
        let _daemon = setup.start().await;
        let calls = seen(&world).await;
        let made = upstream.calls(ONCE);
        if anyway {
            assert_eq!(answers(&calls), ["answer-2"]);
            assert!(made.len() == 2 && keys(&made).len() == 1, "{made:?}");
        } else {
            assert_eq!((&calls[0]["code"], &calls[0]["unknown"]), (&json!("UNKNOWN"), &json!(true)));
            assert_eq!(made.len(), 1);
        }
    }
}

#[tokio::test]
async fn who_asks_is_not_asked_about_what_the_upstream_refused_or_answered() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    upstream.next(ONCE, [Reply::Refuse(Code::FailedPrecondition)]);
    let setup = caller(world.setup(), &upstream.address).with("upstreams.counting.unknown-outcome", "ask");
    let _daemon = setup.start().await;
    world.publish("test.in", retried(&[ONCE], 2)).await;
    assert_eq!(answers(&seen(&world).await), ["answer-2"]);
    assert_eq!(upstream.calls(ONCE).len(), 2, "refused, answered, recalled");
}

#[tokio::test]
async fn a_call_that_reached_nobody_is_made_again_whatever_it_is() {
    let (world, upstream) = (World::start().await, Counting::start().await);
    let nobody = free_address();
    let setup = caller(world.setup(), &nobody).with("upstreams.counting.retries", 100);
    let daemon = setup.start().await;
    let before = daemon.scrape().await;
    world.publish("test.in", calls(&[PLAIN])).await;
    let repeated = |scrape: &harness::metrics::Scrape| scrape.sum("cofferdam_rpc_retries_total", &[]) >= 1.0;
    daemon.moved("a repeat", &before, repeated).await;
    let gate = Gate::at(&nobody).await;
    gate.open(&upstream.address);
    assert_eq!(answers(&seen(&world).await), ["answer-1"]);
    assert_eq!(upstream.calls(PLAIN).len(), 1);
}

#[tokio::test]
async fn an_upstream_that_dies_over_a_call_is_asked_again_where_twice_does_no_harm() {
    for (method, calls_made) in [(IDEMPOTENT, 2), (ONCE, 2), (PLAIN, 1)] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        upstream.next(method, [Reply::Hold]);
        let gate = Gate::closed().await;
        gate.open(&upstream.address);
        let setup = caller(world.setup(), &gate.address()).with("upstreams.counting.retries", 100);
        let _daemon = setup.start().await;
        world.publish("test.in", calls(&[method])).await;
        upstream.wait_calls(method, 1).await;
        gate.shut();
        gate.open(&upstream.address);
        let went = seen(&world).await.remove(0);
        let made = upstream.calls(method);
        assert!(made.len() == calls_made && keys(&made).len() == 1, "{method}: {made:?}");
        assert_eq!(went["answer"].is_string(), calls_made == 2, "{method}: {went}");
    }
}

#[tokio::test]
async fn what_the_upstream_decided_is_not_repeated() {
    // What it refused on the merits, for every method; what may pass, where twice may do harm; what it says is not to be.
    for (method, reply, code) in [
        (IDEMPOTENT, Reply::Refuse(Code::FailedPrecondition), "FAILED_PRECONDITION"),
        (ONCE, Reply::Refuse(Code::InvalidArgument), "INVALID_ARGUMENT"),
        (ONCE, Reply::Refuse(Code::Internal), "INTERNAL"),
        (PLAIN, Reply::Refuse(Code::Unavailable), "UNAVAILABLE"),
        (IDEMPOTENT, Reply::PushBack("-1"), "UNAVAILABLE"),
    ] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        upstream.next(method, [reply]);
        let _daemon = caller(world.setup(), &upstream.address).start().await;
        world.publish("test.in", calls(&[method])).await;
        let went = seen(&world).await.remove(0);
        assert_eq!((&went["code"], &went["local"]), (&json!(code), &json!(false)), "{method}");
        assert_eq!(upstream.calls(method).len(), 1, "{method} {code}");
        assert_eq!(world.count("cd.a.>").await, usize::from(method == ONCE), "the claim that was taken back");
    }
}

#[tokio::test]
async fn what_passes_is_waited_out_where_twice_does_no_harm() {
    let passing = [Code::Unavailable, Code::Aborted, Code::ResourceExhausted].map(Reply::Refuse);
    for method in [IDEMPOTENT, ONCE] {
        let (world, upstream) = (World::start().await, Counting::start().await);
        upstream.next(method, passing.clone());
        let daemon = caller(world.setup(), &upstream.address).start().await;
        let before = daemon.scrape().await;
        world.publish("test.in", calls(&[method])).await;
        assert_eq!(answers(&seen(&world).await), ["answer-4"]);
        assert_eq!(keys(&upstream.calls(method)).len(), 1);
        let moved = daemon.scrape().await.since(&before);
        assert_eq!(moved.sum("cofferdam_rpc_retries_total", &[("plugin", "caller")]), 3.0);
        assert_eq!(moved.sum("cofferdam_rpc_calls_total", &[("plugin", "caller"), ("code", "0")]), 1.0);
        assert_eq!(moved.sum("cofferdam_rpc_calls_total", &[]), 1.0, "a call and its repeats are one");
    }
}

#[tokio::test]
async fn a_list_of_methods_that_is_none_is_refused_at_the_start() {
    let world = World::start().await;
    let setup = caller(world.setup(), "127.0.0.1:1")
        .with("upstreams.counting.once", vec!["counting/a.B/C"])
        .with("upstreams.counting.unknown-outcome", "guess");
    let told = setup.refused().await;
    assert!(
        told.contains("upstreams.counting.once names \"counting/a.B/C\", which is not a method"),
        "{told}"
    );
    assert!(
        told.contains("upstreams.counting.unknown-outcome is \"guess\", which is not repeat or ask"),
        "{told}"
    );
}
