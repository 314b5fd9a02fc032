//! Stopping, dying and sharing: whatever happens to a daemon, each event takes effect once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use harness::{
    daemon::Daemon,
    metrics::counts,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    world::{Message, World},
};
use serde_json::json;

/// Events of a dead daemon come again soon.
const COUNTED: &str = "order-key = [\"/key\"]\nack-wait = \"2s\"";

fn counter() -> Plugin {
    Plugin::fixture("state-counter")
        .named("counter")
        .on("test.in", COUNTED)
        .state("counter")
        .reports_to("test.seen")
}

/// Calls Planning, which holds it as long as the test likes.
fn caller(world: &World, planning: &Planning) -> Setup {
    let method = format!("planning/{SERVICE}/GetPlanContext");
    let plugin = Plugin::fixture("sleep-in-rpc")
        .named("caller")
        .on("test.in", "order-key = [\"/key\"]\nack-wait = \"2s\"\nmax-attempts = 1")
        .may("rpc", &[&method])
        .reports_to("test.seen");
    world
        .setup()
        .plugin(plugin)
        .upstream("planning", &planning.address)
        .with("upstreams.planning.timeout", "60s")
}

fn call(key: &str) -> serde_json::Value {
    json!({ "key": key, "upstream": "planning", "method": format!("{SERVICE}/GetPlanContext") })
}

#[tokio::test]
async fn a_stop_lets_what_runs_finish_and_hands_back_what_waits() {
    let world = World::start().await;
    let planning = Planning::held().await;
    let setup = caller(&world, &planning);
    let mut daemon = setup.start().await;
    for _ in 0..3 {
        world.publish("test.in", call("k")).await;
    }
    planning.wait_calls(1).await;
    daemon.terminate();
    daemon.says("draining").await;
    let (status, body) = daemon.health("/health/ready").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("draining"), "{body}");
    assert_eq!(daemon.health("/health/live").await.0, 200);
    planning.release();
    let status = daemon.end().await;
    assert!(status.success(), "{status}");
    assert_eq!(world.count("test.seen").await, 1, "what ran has committed; what waited was not begun");
    assert_eq!(planning.calls().len(), 1);

    let _next = setup.start().await;
    world.wait_stored("test.seen", 3).await;
    world.quiet().await;
    assert_eq!((world.count("test.seen").await, planning.calls().len()), (3, 3));
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_and_the_event_comes_again() {
    let world = World::start().await;
    let planning = Planning::held().await;
    let setup = caller(&world, &planning).with("dispatch.drain", "300ms");
    let mut daemon = setup.start().await;
    world.publish("test.in", call("k")).await;
    planning.wait_calls(1).await;
    daemon.stop().await;
    assert!(daemon.log().text().contains("the drain time is over"), "{}", daemon.log().text());
    assert_eq!(world.count("test.seen").await, 0);
    planning.release();
    let _next = setup.start().await;
    world.wait_stored("test.seen", 1).await;
    world.quiet().await;
    assert_eq!(world.count("test.seen").await, 1);
}

/// Publishes `count` events over `keys` keys.
async fn publish(world: &World, count: usize, keys: usize) {
    for n in 0..count {
        world.publish("test.in", json!({ "key": format!("key-{}", n % keys), "n": n })).await;
    }
}

/// Every event counted once, and what was told of each key in the order of its counts.
fn assert_exact(seen: &[Message], count: usize, keys: usize) {
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut events = BTreeSet::new();
    for message in seen {
        let body = message.json();
        let key = body["key"].as_str().expect("a key").to_owned();
        told.entry(key).or_default().push(body["count"].as_u64().expect("a count"));
        assert!(events.insert(body["event"].to_string()), "told twice: {body}");
    }
    assert_eq!((told.len(), seen.len()), (keys, count));
    let expected: Vec<u64> = (1..=(count / keys) as u64).collect();
    for (key, counts) in told {
        assert_eq!(counts, expected, "{key}");
    }
}

#[tokio::test]
async fn events_of_a_key_are_handled_in_the_streams_order() {
    let world = World::start().await;
    let daemon = world.setup().plugin(counter()).start().await;
    let before = daemon.scrape().await;
    publish(&world, 120, 6).await;
    let seen = world.wait_stored("test.seen", 120).await;
    world.quiet().await;
    assert_exact(&seen, 120, 6);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for message in &seen {
        let body = message.json();
        let (key, event) = (body["key"].to_string(), body["event"].as_str().expect("an id"));
        let sequence = event.rsplit('.').next().and_then(|s| s.parse().ok()).expect("origin.sequence");
        assert!(last.insert(key, sequence).is_none_or(|before| before < sequence), "{body}");
    }
    daemon.events(&before, [("counter done -", 120)]).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_counts_each_event_once() {
    const EVENTS: usize = 240;
    let world = World::start().await;
    let setup = world.setup().plugin(counter());
    publish(&world, EVENTS, 8).await;
    // Different distances, so that the kill meets different steps: before the first commit, between commit, publish and ack.
    let mut killed = 0;
    for more in [1, 7, 20, 3, 31, 12] {
        let mut daemon = setup.start().await;
        let goal = (world.count("test.seen").await + more).min(EVENTS);
        world.wait_stored("test.seen", goal).await;
        daemon.kill().await;
        killed += 1;
    }
    assert_eq!(killed, 6);
    let _last = setup.start().await;
    world.wait_stored("test.seen", EVENTS).await;
    world.quiet().await;
    assert_exact(&world.stored("test.seen").await, EVENTS, 8);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

#[tokio::test]
async fn a_nats_that_is_killed_in_the_middle_costs_no_event_and_repeats_none() {
    const EVENTS: usize = 160;
    let mut world = World::start().await;
    let daemon = world.setup().plugin(counter()).start().await;
    publish(&world, EVENTS, 8).await;
    for more in [5, 40] {
        let goal = (world.count("test.seen").await + more).min(EVENTS);
        world.wait_stored("test.seen", goal).await;
        world.nats.kill().await;
        daemon.wait_ready(503).await;
        world.nats.up().await;
        daemon.wait_ready(200).await;
    }
    world.wait_stored("test.seen", EVENTS).await;
    world.quiet().await;
    assert_exact(&world.stored("test.seen").await, EVENTS, 8);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

#[tokio::test]
async fn two_daemons_on_the_same_durables_count_each_event_once() {
    const EVENTS: usize = 200;
    let world = World::start().await;
    // Few at a time, so that both get their share of what has no order.
    let plain = || Plugin::fixture("echo").named("plain").on("test.plain", "").reports_to("test.echoed");
    let setup = || world.setup().plugin(counter()).plugin(plain()).with("dispatch.max-in-flight", 16);
    let (one, two) = (setup(), setup());
    let (one, two) = (one.start().await, two.start().await);
    publish(&world, EVENTS, 4).await;
    for n in 0..EVENTS {
        world.publish("test.plain", n).await;
    }
    world.wait_stored("test.seen", EVENTS).await;
    world.wait_stored("test.echoed", EVENTS).await;
    world.quiet().await;
    assert_exact(&world.stored("test.seen").await, EVENTS, 4);
    assert_eq!(world.count("test.echoed").await, EVENTS);
    let done = async |daemon: &Daemon, plugin: &str| {
        daemon.scrape().await.sum("cofferdam_events_total", &[("outcome", "done"), ("plugin", plugin)])
    };
    for plugin in ["counter", "plain"] {
        let (first, second) = wait_for("both to have counted", async || {
            let (first, second) = (done(&one, plugin).await, done(&two, plugin).await);
            (first + second >= EVENTS as f64).then_some((first, second))
        })
        .await;
        assert_eq!(first + second, EVENTS as f64, "{plugin}: {first} and {second}");
        // Where the order counts, one host at a time is active.
        assert!(plugin == "counter" || (first > 0.0 && second > 0.0), "{first} and {second}");
    }
}

#[tokio::test]
async fn a_cell_that_another_host_changed_makes_the_run_begin_anew() {
    let world = World::start().await;
    let planning = Planning::held().await;
    // Both plugins keep what they know of a key in one cell; the hosts know nothing of each other.
    let method = format!("planning/{SERVICE}/GetPlanContext");
    let slow = Plugin::fixture("sleep-in-rpc")
        .named("slow")
        .on("test.slow", "order-key = [\"/key\"]")
        .state("shared")
        .may("rpc", &[&method])
        .reports_to("test.called");
    let quick = counter().named("quick").state("shared");
    let setup = world.setup().plugin(slow).upstream("planning", &planning.address);
    let setup = setup.with("upstreams.planning.timeout", "60s");
    let one = setup.start().await;
    let other = world.setup().plugin(quick);
    let _two = other.start().await;
    let before = one.scrape().await;

    world.publish("test.slow", call("k")).await;
    planning.wait_calls(1).await;
    assert_eq!(one.scrape().await.sum("cofferdam_events_in_flight", &[("plugin", "slow")]), 1.0);
    world.publish("test.in", json!({ "key": "k" })).await;
    world.wait_stored("test.seen", 1).await;
    planning.release();

    world.wait_stored("test.called", 1).await;
    world.quiet().await;
    assert_eq!(world.count("test.called").await, 1);
    assert_eq!(planning.calls().len(), 2, "the run on the old state is void");
    let keys: BTreeSet<String> = planning
        .calls()
        .iter()
        .filter_map(|call| Some(call.metadata.get("cofferdam-idempotency-key")?.to_str().ok()?.to_owned()))
        .collect();
    assert_eq!(keys.len(), 1, "the same call of the same event");
    let moved = one.events(&before, [("slow done -", 1)]).await;
    assert_eq!(moved.counts("cofferdam_commit_conflicts_total", &["plugin"]), counts([("slow", 1)]));
    world.publish("test.in", json!({ "key": "k" })).await;
    let seen = world.wait_stored("test.seen", 2).await;
    assert_eq!(seen[1].json()["count"], 2, "the state outlives the conflict");
}

#[tokio::test]
async fn an_event_that_keeps_ending_with_its_host_becomes_a_dead_letter_unrun() {
    let world = World::start().await;
    let planning = Planning::held().await;
    let setup = caller(&world, &planning).with("dispatch.max-deliveries", 2);
    world.publish("test.in", call("k")).await;
    // Up to three times it is not suspected, twice it runs alone. Taking over may cost a delivery of its own.
    let mut deaths = 0;
    let daemon = loop {
        let mut daemon = setup.start().await;
        let dead =
            wait_for("a call or a dead letter", async || match world.count("cofferdam.dead.>").await {
                0 => (planning.calls().len() > deaths).then_some(false),
                _ => Some(true),
            })
            .await;
        if dead {
            break daemon;
        }
        daemon.kill().await;
        deaths += 1;
    };
    assert!((3..=5).contains(&deaths), "{deaths}");
    let letter = world.dead_letters("caller", 1).await.remove(0);
    assert_eq!((&letter["outcome"], &letter["attempts"]), (&json!("deadly"), &json!(1)));
    assert!(letter["deliveries"].as_u64() > Some(deaths as u64), "{letter}");
    assert_eq!(planning.calls().len(), deaths);
    world.quiet().await;
    daemon.events(&Default::default(), [("caller deadly guest", 1)]).await;
}

#[tokio::test]
async fn a_stop_while_nothing_happens_is_quick_and_clean() {
    let world = World::start().await;
    let mut daemon = world.setup().plugin(counter()).start().await;
    let began = tokio::time::Instant::now();
    daemon.stop().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(daemon.log().lines().iter().any(|line| line.contains("stopped")), "{}", daemon.log().text());
}
