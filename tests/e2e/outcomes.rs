//! What becomes of an event, told apart in metrics, dead letters and the log by outcome and by whose fault it was; and what
//! that means for the events beside it.

use std::time::Duration;

use harness::{
    daemon::Daemon,
    metrics::{Scrape, counts},
    planning::{Planning, SERVICE},
    plugin::Plugin,
    world::World,
};
use serde_json::{Value, json};

/// Two tries, one right after the other.
const TWICE: &str = "max-attempts = 2\nbackoff = \"50ms\"";

/// A guest named `p` that takes `test.in` and publishes on `test.seen`.
fn guest(fixture: &str, subscription: &str) -> Plugin {
    Plugin::fixture(fixture).named("p").on("test.in", subscription)
}

struct Stage {
    world: World,
    daemon: Daemon,
    before: Scrape,
}

impl Stage {
    async fn of(plugin: Plugin) -> Stage {
        let world = World::start().await;
        let daemon = world.setup().plugin(plugin).start().await;
        let before = daemon.scrape().await;
        Stage { world, daemon, before }
    }

    /// One event; waits until nothing is under way.
    async fn event(&self, data: impl ToString) {
        self.world.publish("test.in", data).await;
        self.world.quiet().await;
    }

    async fn moved(&self) -> Scrape {
        self.daemon.scrape().await.since(&self.before)
    }

    /// Exactly these events, `"p <outcome> <fault>"`, and as many dead letters as there are.
    async fn check<const N: usize>(&self, expected: [(&str, u64); N], dead: u64) -> Scrape {
        let all: u64 = expected.iter().map(|(_, count)| count).sum();
        let moved = self.daemon.events(&self.before, expected).await;
        assert_eq!(moved.sum("cofferdam_dead_letters_total", &[]), dead as f64);
        assert_eq!(moved.sum("cofferdam_event_seconds_count", &[("plugin", "p")]), all as f64);
        assert_eq!(self.world.count("cofferdam.dead.>").await as u64, dead);
        moved
    }

    async fn letter(&self) -> Value {
        self.world.dead_letters("p", 1).await.remove(0)
    }
}

#[tokio::test]
async fn a_handled_event_is_done_and_its_message_stored_once() {
    let stage = Stage::of(guest("echo", "").reports_to("test.seen")).await;
    stage.event("hello").await;
    let moved = stage.check([("p done -", 1)], 0).await;
    assert_eq!(moved.counts("cofferdam_effects_total", &["plugin", "kind"]), counts([("p publish", 1)]));
    let seen = stage.world.stored("test.seen").await;
    let [message] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(&message.data[..], b"hello");
    assert_eq!(message.header("Cofferdam-Plugin"), Some("p"));
}

#[tokio::test]
async fn a_retry_comes_again_and_only_the_run_that_succeeds_has_effects() {
    let plugin = guest("retry-then-ok", "max-attempts = 3\nbackoff = \"50ms\"").reports_to("test.seen");
    let stage = Stage::of(plugin).await;
    stage.event(json!({ "retries": 2 })).await;
    stage.check([("p retry guest", 2), ("p done -", 1)], 0).await;
    let seen = stage.world.stored("test.seen").await;
    assert_eq!(seen.iter().map(|m| m.json()).collect::<Vec<_>>(), [json!({ "attempt": 3, "last": true })]);
}

#[tokio::test]
async fn the_last_attempt_becomes_a_dead_letter_with_all_that_is_needed_to_redo_it() {
    let stage = Stage::of(guest("retry-then-ok", TWICE).reports_to("test.seen")).await;
    let told = json!({ "retries": 9 });
    stage.event(&told).await;
    stage.check([("p retry guest", 2)], 1).await;
    let letter = stage.letter().await;
    assert_eq!(
        (&letter["plugin"], &letter["outcome"], &letter["fault"]),
        (&json!("p"), &json!("retry"), &json!("guest"))
    );
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("attempt 2 fails"), &json!(2)));
    assert_eq!(letter["event"]["subject"], "test.in");
    assert_eq!(letter["event"]["data"], json!({ "text": told.to_string() }));
    assert_eq!((&letter["stream"], &letter["durable"]), (&json!("TEST"), &json!("cofferdam-p-test-in")));
    assert_eq!(stage.world.count("test.seen").await, 0);
}

#[tokio::test]
async fn a_reject_is_not_tried_again() {
    let stage = Stage::of(guest("reject", TWICE).reports_to("test.seen")).await;
    stage.event("never").await;
    stage.check([("p rejected guest", 1)], 1).await;
    assert_eq!(stage.letter().await["reason"], "never");
    assert_eq!(stage.world.count("test.seen").await, 0);
}

#[tokio::test]
async fn a_trap_does_not_ack_and_its_last_words_are_kept() {
    let stage = Stage::of(guest("trap", TWICE).reports_to("test.seen")).await;
    stage.event("ouch").await;
    stage.check([("p trapped guest", 2)], 1).await;
    let reason = stage.letter().await["reason"].to_string();
    assert!(reason.contains("ouch"), "{reason}");
    assert_eq!(stage.world.count("test.seen").await, 0);
}

#[tokio::test]
async fn an_endless_loop_meets_the_cpu_limit() {
    let stage = Stage::of(guest("spin", TWICE).limit("cpu", "100ms")).await;
    stage.event("").await;
    let moved = stage.check([("p timed-out guest", 2)], 1).await;
    assert!(stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("(limit `cpu`)")));
    let used = moved.sum("cofferdam_guest_cpu_microseconds_total", &[("plugin", "p")]);
    assert!(used >= 200_000.0, "{used} us");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_meets_the_wall_limit() {
    let stage = Stage::of(guest("spin", TWICE).limit("cpu", "60s").limit("wall", "200ms")).await;
    stage.event("").await;
    stage.check([("p timed-out guest", 2)], 1).await;
    assert!(stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("(limit `wall`)")));
}

#[tokio::test]
async fn a_slow_upstream_is_given_no_longer_than_the_event_has() {
    let world = World::start().await;
    let planning = Planning::held().await;
    let plugin = guest("sleep-in-rpc", TWICE).limit("wall", "300ms").reports_to("test.seen");
    let method = format!("{SERVICE}/GetPlanContext");
    let plugin = plugin.may("rpc", &[&format!("planning/{method}")]);
    let setup = world.setup().plugin(plugin).upstream("planning", &planning.address);
    let daemon = setup.with("upstreams.planning.timeout", "60s").start().await;
    let before = daemon.scrape().await;
    let mut seen = world.watch("test.seen").await;
    let mut dead = world.watch("cofferdam.dead.p").await;
    world.publish("test.in", json!({ "upstream": "planning", "method": method })).await;
    // The call ends with the event's time; whether the guest can still say so is a matter of microseconds.
    tokio::select! {
        message = seen.next() => assert_eq!(message.json()["code"], "DEADLINE_EXCEEDED"),
        letter = dead.next() => assert_eq!(letter.json()["outcome"], "timed-out"),
    }
    world.quiet().await;
    let moved = daemon.scrape().await.since(&before);
    assert!(moved.sum("cofferdam_event_seconds_sum", &[("plugin", "p")]) < 30.0, "not the upstream's minute");
}

#[tokio::test]
async fn a_greedy_guest_meets_the_memory_limit() {
    let stage = Stage::of(guest("grow-memory", TWICE).limit("memory", "8MiB").reports_to("test.seen")).await;
    stage.event("{}").await;
    stage.check([("p limited guest", 2)], 1).await;
    assert!(stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("(limit `memory`)")));
}

#[tokio::test]
async fn a_chatty_guest_meets_the_limit_of_host_calls() {
    let plugin = guest("too-many-host-calls", TWICE).limit("host-calls", 500).reports_to("test.seen");
    let stage = Stage::of(plugin).await;
    stage.event("{}").await;
    stage.check([("p limited guest", 2)], 1).await;
    assert!(stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("more than 500 host calls")));
}

#[tokio::test]
async fn endless_recursion_ends_the_run_and_nothing_else() {
    let stage = Stage::of(guest("deep-recursion", TWICE)).await;
    stage.event("").await;
    // Rust keeps a stack of its own in linear memory: what lies below it is out of bounds.
    stage.check([("p trapped guest", 2)], 1).await;
    assert!(
        stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("out of bounds memory access"))
    );
}

#[tokio::test]
async fn too_many_messages_are_an_error_that_the_guest_can_handle() {
    let stage = Stage::of(guest("emit-flood", TWICE).reports_to("test.seen")).await;
    stage.event(json!({ "messages": 1001 })).await;
    stage.check([("p rejected guest", 1)], 1).await;
    assert_eq!(stage.world.count("test.seen").await, 0);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_an_error_that_the_guest_can_handle() {
    let stage = Stage::of(guest("huge-emit", TWICE).reports_to("test.seen")).await;
    stage.event(json!({ "bytes": 2 << 20 })).await;
    stage.check([("p done -", 1)], 0).await;
    let seen = stage.world.stored("test.seen").await;
    assert!(seen[0].json()["refused"].as_str().is_some_and(|r| r.starts_with("too large: ")), "{seen:?}");
}

#[tokio::test]
async fn a_subject_that_no_stream_stores_is_the_operators_fault() {
    let stage = Stage::of(guest("echo", TWICE).may("publish", &["nowhere.>"]).set("to", "nowhere.x")).await;
    stage.event("lost").await;
    stage.check([("p rejected operator", 1)], 1).await;
    assert!(
        stage.letter().await["reason"].as_str().is_some_and(|r| r.contains("no stream stores \"nowhere.x\""))
    );
}

#[tokio::test]
async fn effects_that_do_not_fit_the_commit_class_are_a_failure() {
    let subscription = format!("commit = \"publish\"\n{TWICE}");
    let stage = Stage::of(guest("emit-flood", &subscription).reports_to("test.seen")).await;
    stage.event(json!({ "messages": 1 })).await;
    stage.event(json!({ "messages": 2 })).await;
    stage.check([("p done -", 1), ("p unfit operator", 2)], 1).await;
    assert_eq!(stage.world.count("test.seen").await, 1);
}

#[tokio::test]
async fn log_lines_over_the_limit_are_dropped_and_counted() {
    let stage = Stage::of(guest("log-flood", TWICE).reports_to("test.seen")).await;
    stage.event(json!({ "lines": 200, "bytes": 1000 })).await;
    let moved = stage.check([("p done -", 1)], 0).await;
    let dropped = moved.sum("cofferdam_log_lines_dropped_total", &[("plugin", "p")]);
    let kept = stage.daemon.log().lines().iter().filter(|line| line.contains("xxxxxxxx")).count();
    assert!(kept > 10 && dropped > 100.0 && kept as f64 + dropped == 200.0, "{kept} kept, {dropped} dropped");
}

#[tokio::test]
async fn a_poison_event_does_not_hold_up_its_neighbours() {
    let plugin = guest("retry-then-ok", "max-attempts = 2\nbackoff = \"1h\"").reports_to("test.seen");
    let stage = Stage::of(plugin).await;
    stage.world.publish("test.in", json!({ "retries": 1, "poison": true })).await;
    stage.daemon.says("will be tried again").await;
    for _ in 0..20 {
        stage.world.publish("test.in", json!({ "retries": 0 })).await;
    }
    stage.world.wait_stored("test.seen", 20).await;
    stage.check([("p retry guest", 1), ("p done -", 20)], 0).await;
    let durable = stage.world.durable("TEST", "cofferdam-p-test-in").await;
    assert_eq!(durable.num_ack_pending, 0, "its failure has been committed");
    assert_eq!(stage.world.count("cd.t.p.*.*.retry.0.2").await, 1, "a timer will bring it again");
    assert_eq!(stage.moved().await.sum("cofferdam_events_in_flight", &[]), 0.0);
}

#[tokio::test]
async fn a_handler_slower_than_the_ack_wait_is_delivered_once() {
    let world = World::start().await;
    let planning = Planning::slow(Duration::from_secs(4)).await;
    let method = format!("{SERVICE}/GetPlanContext");
    let plugin = guest("sleep-in-rpc", "ack-wait = \"1s\"")
        .limit("concurrency", 1)
        .may("rpc", &[&format!("planning/{method}")])
        .reports_to("test.seen");
    let setup = world.setup().plugin(plugin).upstream("planning", &planning.address);
    let daemon = setup.with("upstreams.planning.timeout", "60s").start().await;
    let before = daemon.scrape().await;
    let call = json!({ "key": "k", "upstream": "planning", "method": method });
    // The second is parked behind the first for as long.
    world.publish("test.in", &call).await;
    world.publish("test.in", &call).await;
    let seen = world.wait_stored("test.seen", 2).await;
    assert!(seen.iter().all(|m| m.json()["bytes"].as_u64() > Some(0)), "{seen:?}");
    world.quiet().await;
    assert_eq!(planning.calls().len(), 2);
    let durable = world.durable("TEST", "cofferdam-p-test-in").await;
    assert_eq!((durable.delivered.consumer_sequence, durable.num_redelivered), (2, 0));
    daemon.events(&before, [("p done -", 2)]).await;
}

#[tokio::test]
async fn advisories_tell_of_each_event_as_it_ends() {
    let world = World::start().await;
    let plugin = guest("retry-then-ok", TWICE).reports_to("test.seen");
    let _daemon = world.setup().plugin(plugin).with("observe.advisories", true).start().await;
    let mut told = world.watch("cofferdam-advisory.>").await;
    let sequence = world.publish("test.in", json!({ "retries": 1 })).await;
    for (outcome, attempt, fault) in [("retry", 1, json!("guest")), ("done", 2, Value::Null)] {
        let advisory = told.next().await;
        assert_eq!(advisory.subject, format!("cofferdam-advisory.p.{outcome}"));
        let body = advisory.json();
        assert_eq!(
            (&body["outcome"], &body["attempt"], &body["fault"]),
            (&json!(outcome), &json!(attempt), &fault)
        );
        assert_eq!((&body["plugin"], &body["subject"]), (&json!("p"), &json!("test.in")));
        assert!(body["event"].as_str().is_some_and(|id| id.ends_with(&format!(".{sequence}"))), "{body}");
        assert!(body["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{body}");
    }
}
