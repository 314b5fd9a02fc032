//! Pressure: a burst is delayed and nothing of it lost; a backlog that nears its stream's limits is told before anything is
//! discarded, and what was discarded is told as well; an outage is waited out.

use std::time::Duration;

use async_nats::jetstream::stream;
use harness::{
    burst::Burst,
    daemon::Daemon,
    metrics::Scrape,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    world::World,
};
use serde_json::{Value, json};

async fn none_is_lost(nats: bool) {
    let burst = Burst { nats, events: 10_000, bytes: 200, warm_up: 100, trickle: (100, 1), waiting: false };
    let report = Box::pin(burst.run()).await;
    assert_eq!((report.lost, report.repeated), (0, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_delayed_and_nothing_of_it_lost_on_nats() {
    none_is_lost(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_delayed_and_nothing_of_it_lost_on_the_embedded_bus() {
    none_is_lost(false).await;
}

/// A stream that keeps ten messages.
async fn small(world: &World) {
    let config = stream::Config {
        name: "SMALL".to_owned(),
        subjects: vec!["small.>".to_owned()],
        max_messages: 10,
        ..Default::default()
    };
    world.jetstream.create_stream(config).await.expect("a stream");
}

/// Holds each event of it for as long as Planning does, one at a time and none ahead.
async fn holding(world: &World, planning: &Planning) -> Setup {
    let method = format!("planning/{SERVICE}/GetPlanContext");
    let plugin = Plugin::fixture("sleep-in-rpc")
        .named("slow")
        .on("small.in", "ack-wait = \"5s\"")
        .may("rpc", &[&method])
        .reports_to("test.seen");
    world
        .setup()
        .plugin(plugin)
        .upstream("planning", &planning.address)
        .with("upstreams.planning.timeout", "60s")
        .with("dispatch.max-in-flight", 1)
}

fn call() -> Value {
    json!({ "upstream": "planning", "method": format!("{SERVICE}/GetPlanContext") })
}

async fn scraped(daemon: &Daemon, what: &str, fits: impl Fn(&Scrape) -> bool) {
    wait_for(&format!("the metrics to show {what}"), async || fits(&daemon.scrape().await).then_some(()))
        .await;
}

#[tokio::test]
async fn a_backlog_near_its_streams_limits_is_told_before_anything_is_discarded() {
    let world = World::start().await;
    small(&world).await;
    let planning = Planning::held().await;
    let daemon = holding(&world, &planning).await.start().await;
    for _ in 0..8 {
        world.publish("small.in", call()).await;
    }
    let warning = daemon.says("has reached 80% of what stream SMALL keeps").await;
    assert_eq!(warning["level"], "WARN", "{warning}");
    let message = warning["message"].as_str().expect("a message");
    for part in ["8 of 10 messages", "discarded", "raise the stream's number of messages"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let durable = warning["durable"].as_str().expect("a durable").to_owned();
    let scrape = daemon.scrape().await;
    let of = [("durable", durable.as_str())];
    assert_eq!(scrape.sum("cofferdam_backlog_events", &of), 8.0);
    assert!(scrape.sum("cofferdam_backlog_oldest_seconds", &of) >= 0.0);
    let headroom = scrape.sum("cofferdam_stream_headroom_ratio", &[("stream", "SMALL"), of[0]]);
    assert!((headroom - 0.2).abs() < 0.01, "{headroom}");
    assert_eq!(scrape.sum("cofferdam_discarded_events_total", &of), 0.0);

    planning.release();
    daemon.says("is far from the limit of stream SMALL again").await;
    world.wait_stored("test.seen", 8).await;
    scraped(&daemon, "no backlog", |now| now.sum("cofferdam_backlog_events", &of) == 0.0).await;
    assert_eq!(daemon.log().text().matches("has reached").count(), 1, "{}", daemon.log().text());
}

#[tokio::test]
async fn events_that_are_discarded_before_their_turn_are_told_and_counted() {
    let world = World::start().await;
    small(&world).await;
    let planning = Planning::held().await;
    let daemon = holding(&world, &planning).await.start().await;
    world.publish("small.in", call()).await;
    planning.wait_calls(1).await;
    let backlog = async |events: f64| {
        scraped(&daemon, "the backlog", |now| now.sum("cofferdam_backlog_events", &[]) == events).await;
    };
    for _ in 0..9 {
        world.publish("small.in", call()).await;
    }
    // The look has been: from now on it can be told what vanished.
    backlog(10.0).await;
    for _ in 0..9 {
        world.publish("small.in", call()).await;
    }
    let lost = |line: &Value| line["level"] == "ERROR" && !line["discarded"].is_null();
    let error = daemon.logged("what was discarded", lost).await;
    let text = error["message"].as_str().expect("a message");
    assert!(text.contains("stream SMALL discarded") && text.contains("raise the stream's limits"), "{text}");
    let lost = error["discarded"].as_u64().expect("a number");
    // Nine have vanished. One of them runs, and one or two more may have been fetched ahead.
    assert!((6..=8).contains(&lost), "{error}");
    let counted = daemon.scrape().await.sum("cofferdam_discarded_events_total", &[]);
    assert_eq!(counted as u64, lost);
    planning.release();
    world.wait_stored("test.seen", 19 - lost as usize).await;
    backlog(0.0).await;
}

/// Clock ticks that a process has used.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, rest) = text.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    number(11) + number(12)
}

#[tokio::test]
async fn a_long_outage_is_waited_out_and_costs_nothing() {
    let mut world = World::start().await;
    let plugin = Plugin::fixture("echo").on("test.in", "ack-wait = \"2s\"").reports_to("test.seen");
    let daemon = world.setup().plugin(plugin).start().await;
    world.publish("test.in", "before").await;
    world.wait_stored("test.seen", 1).await;
    world.nats.stop().await;
    let reason = daemon.wait_ready(503).await;
    assert!(reason.contains("out of reach"), "{reason}");
    assert_eq!(daemon.health("/health/live").await.0, 200);
    // Longer than every answer is waited for, every ack wait and the longest pause between two tries.
    let (lines, used) = (daemon.log().lines().len(), ticks(daemon.id()));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let (lines, used) = (daemon.log().lines().len() - lines, ticks(daemon.id()) - used);
    // A hundredth of a second each: a tenth of one core at most.
    assert!(used < 150, "{used} ticks in 15 s");
    assert!(lines < 60, "{lines} lines in 15 s: {}", daemon.log().text());
    world.nats.up().await;
    daemon.wait_ready(200).await;
    world.publish("test.in", "after").await;
    world.wait_stored("test.seen", 2).await;
}
