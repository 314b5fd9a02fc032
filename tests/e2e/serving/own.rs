//! A daemon that is its own upstream: its plugins call each other in memory, whether or not anything listens, and nobody waits for
//! himself, however few places there are.

use std::time::Duration;

use fleet_proto::fixtures::v1::{AddRequest, Fate, GetRequest};
use harness::{
    counting::{Reply, SERVICE},
    daemon::Daemon,
    metrics::{Scrape, counts},
    plugin::{LEDGER, Plugin},
    wait::wait_for,
    way_in::body,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use super::{ADDED, Ground, Ledger, add, add_calling, keyed, ledger};
use crate::both::on_both_buses;

on_both_buses!(
    plugins_call_each_other_without_a_port,
    calls_come_in_beside_the_runs_that_wait_for_them,
    a_client_that_reads_waits_for_no_long_run,
    calls_in_a_circle_end_at_a_depth_and_leave_room,
    a_read_calls_no_method_that_writes,
    an_event_that_runs_again_gets_the_answers_of_its_calls,
    a_write_of_the_callers_own_cell_is_refused_at_once,
    a_write_that_waits_for_its_caller_ends_in_time_and_runs_after_it,
    who_is_let_come_to_an_end_reads_on_the_way_and_writes_after_the_next_start,
    a_stop_does_not_wait_for_a_write_that_waits_for_the_next_start,
);

/// Where calls are told.
const CALL: &str = "cofferdam.call";
const CALLED: &str = "cofferdam.called";

/// Its events hold the turn of an account, if they name one as their `key`.
fn caller() -> Plugin {
    let settings = "order-key = [\"/key\"]\ncell = \"account/{key}\"\nbackoff = \"50ms\"";
    Plugin::fixture("calls")
        .named("caller")
        .on(CALL, settings)
        .state("ledger")
        .may("rpc", &[&format!("own/{LEDGER}/*"), &format!("counting/{SERVICE}/*")])
        .reports_to(CALLED)
}

impl Ground {
    /// Both plugins, and the daemon as an upstream.
    fn own(mut self) -> Self {
        self.setup = self.setup.with("upstreams.own.address", "self").with("upstreams.own.timeout", "60s");
        let both = ledger().may("rpc", &[&format!("own/{LEDGER}/*"), &format!("counting/{SERVICE}/*")]);
        self.with(both).with(caller())
    }

    fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        self.setup = self.setup.with(path, value);
        self
    }
}

/// A call that the plugin `caller` is to make.
fn call(method: &str, request: &impl Message) -> Value {
    let text = String::from_utf8(request.encode_to_vec()).expect("a request that is text");
    json!({ "upstream": "own", "method": format!("{LEDGER}/{method}"), "request": text })
}

fn get(account: &str) -> GetRequest {
    GetRequest { account: account.to_owned(), ..GetRequest::default() }
}

/// What the calls of each event came to, in the order in which the events were done.
async fn called(daemon: &Daemon, events: usize) -> Vec<Value> {
    let stored = daemon.wait_stored(CALLED, events).await;
    stored.iter().map(|message| body(message)["calls"].clone()).collect()
}

async fn plugins_call_each_other_without_a_port(ground: Ground) {
    let ground = ground.own().set("grpc.listen", Vec::<String>::new());
    let daemon = ground.start().await;
    assert!(daemon.grpcs().is_empty());
    let before = daemon.scrape().await;
    let calls = [call("Add", &add("a", 5)), call("Get", &get("a")), call("Get", &get("none"))];
    daemon.publish(CALL, json!({ "calls": calls })).await;
    let seen = called(&daemon, 1).await.remove(0);
    assert!(seen[0]["answer"].as_str().is_some_and(|answer| answer.starts_with("\u{8}\u{5}")), "{seen}");
    assert_eq!(seen[1]["answer"], "\u{8}\u{5}");
    assert_eq!((&seen[2]["code"], &seen[2]["local"]), (&json!("NOT_FOUND"), &json!(false)));
    // The whole road: stored as an event, counted as any call.
    assert_eq!(daemon.wait_stored(ADDED, 1).await.len(), 1);
    let moved = daemon.scrape().await.since(&before);
    let served = moved.counts("cofferdam_served_calls_total", &["method", "code"]);
    let [added, found, none] =
        [("Add", 0), ("Get", 0), ("Get", 5)].map(|(m, code)| format!("{LEDGER}/{m} {code}"));
    assert_eq!(served, counts([(&added, 1), (&found, 1), (&none, 1)]));
    let made = moved.counts("cofferdam_rpc_calls_total", &["plugin", "upstream", "code"]);
    assert_eq!(made, counts([("caller own 0", 2), ("caller own 5", 1)]));
}

/// A call that writes has the only place of the host and of the plugin, and others wait behind it.
async fn a_client_that_reads_waits_for_no_long_run(ground: Ground) {
    let ground = ground.own().set("sandbox.instances", 1);
    ground.upstream.next("Hold", vec![Reply::Hold; 6]);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 5)).await.expect("an answer");
    let held: Vec<_> = (0..6)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.add(add_calling(&format!("b{n}"), "Hold")).await })
        })
        .collect();
    // The place that anybody may have, and the one that is kept for writes.
    ground.upstream.wait_calls("Hold", 2).await;
    assert_eq!(client.sum("a").await, 5);
    ground.upstream.release();
    for call in held {
        call.await.expect("no panic").expect("an answer");
    }
}

/// Two events have both places of the host and of their plugin; what they call needs places of its own.
async fn calls_come_in_beside_the_runs_that_wait_for_them(ground: Ground) {
    let ground = ground.own().set("sandbox.instances", 2);
    let ground = ground.with(caller().limit("concurrency", 2)).with(
        ledger()
            .may("rpc", &[&format!("own/{LEDGER}/*"), &format!("counting/{SERVICE}/*")])
            .limit("concurrency", 1),
    );
    ground.upstream.next("Hold", [Reply::Hold, Reply::Hold]);
    let daemon = ground.start().await;
    let hold = json!({ "upstream": "counting", "method": format!("{SERVICE}/Hold"), "request": "" });
    for n in 0..6 {
        let calls =
            [hold.clone(), call("Add", &add(&format!("a{n}"), 1)), call("Get", &get(&format!("a{n}")))];
        daemon.publish(CALL, json!({ "calls": calls })).await;
    }
    ground.upstream.wait_calls("Hold", 2).await;
    // Both wait, and others behind them.
    ground.upstream.release();
    for stored in daemon.wait_stored(CALLED, 6).await {
        let seen = body(&stored);
        assert!(seen["calls"][1]["answer"].is_string(), "{seen}");
        assert_eq!(
            (&seen["calls"][2]["answer"], &seen["attempt"]),
            (&json!("\u{8}\u{1}"), &json!(1)),
            "{seen}"
        );
    }
}

async fn calls_in_a_circle_end_at_a_depth_and_leave_room(ground: Ground) {
    let ground = ground.own().set("sandbox.instances", 1).set("grpc.max-calls", 1);
    let one = ledger().may("rpc", &[&format!("own/{LEDGER}/*")]).limit("concurrency", 1);
    let ground = ground.with(one);
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 3)).await.unwrap();
    let before = daemon.scrape().await;
    // Each calls the next with its own request.
    let fate = Fate { calls: format!("own/{LEDGER}/Get"), ..Fate::default() };
    for _ in 0..3 {
        let answer = client.get(GetRequest { fate: Some(fate.clone()), ..get("a") }).await.unwrap();
        assert_eq!(answer.sum, 3);
    }
    let refused = daemon
        .logged("the deepest", |line| {
            line["message"].as_str().is_some_and(|m| m.contains("RESOURCE_EXHAUSTED"))
        })
        .await;
    assert!(refused.to_string().contains("lies within 3 others"), "{refused}");
    let moved = daemon.scrape().await.since(&before);
    let served = moved.counts("cofferdam_served_calls_total", &["code"]);
    assert_eq!(served, counts([("0", 3 * 4), ("8", 3)]));
}

/// A read is repeated under other ids, so that what it writes would be written again.
async fn a_read_calls_no_method_that_writes(ground: Ground) {
    let ground = ground.own();
    let daemon = ground.start().await;
    let client = Ledger::of(&daemon);
    client.add(add("a", 3)).await.unwrap();
    let fate = Fate { calls: format!("own/{LEDGER}/Add"), ..Fate::default() };
    let answer = client.get(GetRequest { fate: Some(fate), ..get("a") }).await.unwrap();
    assert_eq!(answer.sum, 3);
    let refused = daemon
        .logged("the write", |line| {
            line["message"].as_str().is_some_and(|m| m.contains("FAILED_PRECONDITION"))
        })
        .await;
    assert!(refused.to_string().contains("call it from an event, or from a method that writes"), "{refused}");
    assert_eq!(daemon.wait_stored(ADDED, 1).await.len(), 1);
}

async fn an_event_that_runs_again_gets_the_answers_of_its_calls(ground: Ground) {
    let once = ground.own().set("upstreams.own.once", vec![format!("{LEDGER}/Tell")]);
    let daemon = once.start().await;
    let before = daemon.scrape().await;
    let tell = fleet_proto::fixtures::v1::TellRequest { number: 7, place: None };
    let calls = [call("Add", &add("a", 1)), call("Tell", &tell)];
    daemon.publish(CALL, json!({ "calls": calls, "retries": 1 })).await;
    let told = body(&daemon.wait_stored(CALLED, 1).await[0]);
    assert_eq!(told["attempt"], 2, "{told}");
    assert!(told["calls"][0]["answer"].is_string() && told["calls"][1]["answer"].is_string(), "{told}");
    assert_eq!(Ledger::of(&daemon).sum("a").await, 1);
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.sum("cofferdam_rpc_recalled_total", &[("upstream", "own")]), 1.0);
    let ran = moved.counts("cofferdam_events_total", &["plugin", "outcome"]);
    assert_eq!(ran.get("ledger done"), Some(&2), "each call ran once: {ran:?}");
}

async fn a_write_of_the_callers_own_cell_is_refused_at_once(ground: Ground) {
    let ground = ground.own();
    let daemon = ground.start().await;
    daemon
        .publish(CALL, json!({ "key": "a", "calls": [call("Add", &add("a", 1)), call("Add", &add("b", 1))] }))
        .await;
    let seen = called(&daemon, 1).await.remove(0);
    assert_eq!(seen[0]["code"], "FAILED_PRECONDITION", "{seen}");
    let says = "would wait for the turn of the cell \"account/a\" in \"ledger\"";
    assert!(seen[0]["message"].as_str().is_some_and(|message| message.contains(says)), "{seen}");
    assert!(seen[1]["answer"].is_string(), "{seen}");
    let client = Ledger::of(&daemon);
    assert_eq!(client.get(get("a")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.sum("b").await, 1);
}

/// An event has the turn of `a` and calls for `b`, whose call calls for `a`.
async fn a_write_that_waits_for_its_caller_ends_in_time_and_runs_after_it(ground: Ground) {
    let ground = ground.own();
    let daemon = ground.start().await;
    let fate = Fate { calls: format!("own/{LEDGER}/Add"), ..Fate::default() };
    let circle = AddRequest { from: "a".to_owned(), fate: Some(fate), ..add("b", 5) };
    let mut call = call("Add", &circle);
    call["timeout_ms"] = json!(1500);
    daemon.publish(CALL, json!({ "key": "a", "calls": [call] })).await;
    let seen = called(&daemon, 1).await.remove(0);
    assert_eq!(seen[0]["code"], "DEADLINE_EXCEEDED", "{seen}");
    let says = "if it waits for what its caller has, it runs once the caller is through";
    assert!(seen[0]["message"].as_str().is_some_and(|message| message.contains(says)), "{seen}");
    let client = Ledger::of(&daemon);
    wait_for("both calls to be done", async || {
        let sum =
            async |account: &str| client.get(get(account)).await.map(|answer| answer.sum).unwrap_or_default();
        ((sum("a").await, sum("b").await) == (0, 5)).then_some(())
    })
    .await;
    // The inner one added 5 before the outer one took them.
    assert_eq!(daemon.wait_stored(ADDED, 2).await.len(), 2);
}

async fn who_is_let_come_to_an_end_reads_on_the_way_and_writes_after_the_next_start(ground: Ground) {
    let ground = ground.own();
    ground.upstream.next("Hold", [Reply::Hold, Reply::Hold]);
    let mut daemon = ground.start().await;
    Ledger::of(&daemon).add(keyed("k", add("a", 1))).await.unwrap();
    let hold = json!({ "upstream": "counting", "method": format!("{SERVICE}/Hold"), "request": "" });
    for last in [call("Get", &get("a")), call("Add", &add("b", 1))] {
        daemon.publish(CALL, json!({ "calls": [hold.clone(), last] })).await;
    }
    ground.upstream.wait_calls("Hold", 2).await;
    daemon.terminate();
    daemon.says("draining").await;
    ground.upstream.release();
    assert!(
        tokio::time::timeout(Duration::from_secs(30), daemon.end()).await.expect("a stop in time").success()
    );
    let daemon = ground.start().await;
    let stored = daemon.wait_stored(CALLED, 2).await;
    let [read, wrote] = [0, 1].map(|n| body(&stored[n]));
    assert_eq!(read["calls"][1]["answer"], "\u{8}\u{1}", "{read}");
    assert!(wrote["calls"][1]["answer"].is_string(), "{wrote}");
    assert_eq!(wrote["attempt"], 1, "a stop is no attempt: {wrote}");
    // The one that read was through before.
    assert_eq!(ground.upstream.calls("Hold").len(), 3);
    assert_eq!(Ledger::of(&daemon).sum("b").await, 1);
}

async fn a_stop_does_not_wait_for_a_write_that_waits_for_the_next_start(ground: Ground) {
    let ground = ground.own();
    ground.upstream.next("Hold", [Reply::Hold]);
    let mut daemon = ground.start().await;
    let hold = json!({ "upstream": "counting", "method": format!("{SERVICE}/Hold"), "request": "" });
    daemon.publish(CALL, json!({ "key": "a", "calls": [hold] })).await;
    ground.upstream.wait_calls("Hold", 1).await;
    daemon.publish(CALL, json!({ "calls": [call("Add", &add("a", 1))] })).await;
    let waits = |now: &Scrape| now.sum("cofferdam_events_in_flight", &[("plugin", "ledger")]) == 1.0;
    daemon.moved("the call waits for its turn", &Scrape::default(), waits).await;
    daemon.terminate();
    daemon.says("draining").await;
    ground.upstream.release();
    // The drain time is half a minute, the call's a whole one.
    assert!(
        tokio::time::timeout(Duration::from_secs(20), daemon.end()).await.expect("a stop in time").success()
    );
    let daemon = ground.start().await;
    let stored = daemon.wait_stored(CALLED, 2).await;
    let wrote = body(&stored[1]);
    assert!(wrote["calls"][0]["answer"].is_string(), "{wrote}");
    assert_eq!(wrote["attempt"], 1, "a stop is no attempt: {wrote}");
    assert_eq!(Ledger::of(&daemon).sum("a").await, 1);
}
