//! Guests built on the SDK: what they say reaches the host as they said it, and its answers, refusals too, come back.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_sandbox::{Ending, Failure, LogLevel, Priority, Sandbox};
use serde_json::json;

use super::{TARGET, event, fixture, host::Host, limits, once, run};

#[tokio::test]
async fn a_fixture_names_its_contract_and_asks_for_no_wasi() {
    let bytes = std::fs::read(harness::guests::fixture("echo")).unwrap();
    let shape = Sandbox::inspect(&bytes).unwrap();
    assert_eq!(shape.wit, "0.1.0");
    assert!(shape.imports.contains("publish"), "{shape:?}");
    assert!(shape.wasi.is_empty(), "{shape:?}");
}

#[tokio::test]
async fn an_event_passes_through_whole() {
    let data = "\u{fffd} any text, \n any length ".repeat(20_000);
    let seen = once("echo", data.clone()).await;
    assert_eq!(seen.ending, Ending::Ok);
    let headers = vec![("X-Trace".to_owned(), "t1".to_owned())];
    assert_eq!(seen.host.published, [(TARGET.to_owned(), headers, Bytes::from(data))]);
}

#[tokio::test]
async fn nowhere_to_publish_is_rejected() {
    let mut event = event("");
    event.headers.clear();
    let seen = run(&fixture("echo").await, Host::default(), event, &limits()).await;
    let Ending::Failed(Failure::Reject(reason)) = &seen.ending else { panic!("{:?}", seen.ending) };
    assert!(reason.contains("no header X-To"), "{reason}");
}

#[tokio::test]
async fn refusals_are_errors_that_a_guest_can_tell_apart() {
    let told = json!({
        "emit": "other.subject", "rpc": { "upstream": "planning", "method": "a.B/C" }, "state": "key",
        "model": "large", "count": "theirs_total",
    });
    let seen = once("neighbour", told.to_string()).await;
    assert_eq!(
        seen.report(),
        json!({
            "emit": "denied: no grant covers other.subject",
            "rpc": "UNIMPLEMENTED: no such method",
            "state": "no cell: no order key",
            "model": "denied: no grant covers large",
            "count": "undeclared: theirs_total",
        })
    );
    let warnings = seen.host.logs.iter().filter(|(level, _)| *level == LogLevel::Warn);
    assert_eq!(warnings.count(), 5);
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_refusal_too() {
    let seen = once("huge-emit", "").await;
    assert_eq!(seen.report()["refused"], "too large: 16777216 bytes, the limit is 1048576");
    let seen = once("huge-emit", r#"{"bytes": 1048576}"#).await;
    assert_eq!(seen.host.published[0].2.len(), 1_048_576);
}

#[tokio::test]
async fn a_flood_of_messages_stops_at_the_refusal() {
    let seen = once("emit-flood", "").await;
    let Ending::Failed(Failure::Reject(reason)) = &seen.ending else { panic!("{:?}", seen.ending) };
    assert!(reason.contains("more than 1000 messages"), "{reason}");
    let seen = once("emit-flood", r#"{"tolerate": true}"#).await;
    assert_eq!(seen.ending, Ending::Ok);
    assert_eq!(seen.host.published.len(), 1_000);
    assert_eq!(seen.host.published[999].2, "999", "the order of the guest");
}

#[tokio::test]
async fn log_lines_reach_the_host_in_order() {
    let seen = once("log-flood", r#"{"lines": 50, "bytes": 10}"#).await;
    assert_eq!(seen.report()["lines"], 50);
    assert_eq!(seen.host.logs, vec![(LogLevel::Info, "x".repeat(10)); 50]);
}

#[tokio::test]
async fn state_lives_in_the_cell_and_not_in_the_instance() {
    let plugin = fixture("state-counter").await;
    let mut cell = BTreeMap::new();
    for count in 1..=3 {
        let host = Host { cell: Some(cell), ..Host::default() };
        let seen = run(&plugin, host, event(""), &limits()).await;
        assert_eq!(seen.report(), json!({ "key": "key", "count": count, "event": "0123.7" }));
        cell = seen.host.cell.unwrap();
    }
    // Another cell, and the same plugin starts from nothing.
    let host = Host { cell: Some(BTreeMap::new()), ..Host::default() };
    assert_eq!(run(&plugin, host, event(""), &limits()).await.report()["count"], 1);
}

#[tokio::test]
async fn configuration_is_the_hosts() {
    let config = [("max_tasks", "8"), ("roles", r#"["DEV","QA"]"#)];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let told = json!({ "keys": ["max_tasks", "roles", "unknown"] });
    let host = Host { config, ..Host::default() };
    let seen = run(&fixture("config-echo").await, host, event(told.to_string()), &limits()).await;
    assert_eq!(seen.report(), json!({ "max_tasks": 8, "roles": ["DEV", "QA"], "unknown": null }));
}

#[tokio::test]
async fn jobs_reach_the_host_as_the_guest_wrote_them() {
    let told = json!({ "task_id": "t-1", "prompt": "do it", "role": "DEV", "model": "small" });
    let seen = once("submit-job", told.to_string()).await;
    assert_eq!(seen.report(), json!({ "job": "job-1" }));
    let job = &seen.host.jobs[0];
    assert_eq!(
        (job.task_id.as_str(), job.prompt.as_str(), job.model.as_deref()),
        ("t-1", "do it", Some("small"))
    );
    assert_eq!((job.agents[0].id.as_str(), job.agents[0].role.as_str()), ("agent-1", "DEV"));
    let seen = once("submit-job", r#"{"status": "job-1"}"#).await;
    let status = json!({ "phase": "Running", "execution_id": "execution of job-1", "error": null });
    assert_eq!(seen.report(), status);
}

#[tokio::test]
async fn questions_go_out_together_and_answers_come_back_in_their_order() {
    let ask = json!([{ "prompt": "one", "system": "s", "seed": -7, "priority": "high", "timeout": 9 }, { "prompt": "fail" }]);
    let seen = once("infer", json!({ "ask": ask }).to_string()).await;
    let report = seen.report();
    assert_eq!(report["answers"][0]["text"], "ONE");
    let failed = json!({ "error": "failed, empty: no choices", "transient": true });
    assert_eq!(report["answers"][1], failed);
    let [one, _] = seen.host.asked.as_slice() else { panic!("{:?}", seen.host.asked) };
    assert_eq!((one.system.as_deref(), one.sampling.seed, one.timeout_seconds), (Some("s"), Some(-7), 9));
    assert_eq!((one.priority, one.model.as_deref()), (Priority::High, None));
}

#[tokio::test]
async fn a_stream_of_tokens_is_known_by_its_number_until_it_is_dropped() {
    let seen = once("tokens", r#"{"prompt": "cba"}"#).await;
    let piece = |text: &str| json!({ "text": text, "anew": false });
    let pieces = json!([piece("a"), piece("b"), piece("c")]);
    assert_eq!(seen.report(), json!({ "pieces": pieces, "error": null, "whole": "" }));
    assert!(seen.host.open.is_empty() && seen.host.streams == 1);
    let seen = once("tokens", r#"{"prompt": "cba", "take": 2}"#).await;
    assert_eq!(seen.report()["whole"], "C");
    assert!(seen.host.open.is_empty());
    let leaked = once("tokens", r#"{"prompt": "cba", "leak": true}"#).await;
    assert_eq!((leaked.ending, leaked.host.open.len()), (Ending::Ok, 1));
}

#[tokio::test]
async fn time_and_randomness_are_the_hosts() {
    let report = once("clock-and-random", "").await.report();
    assert_eq!(report["event"], 1_700_000_000_000_000_000_u64);
    assert_eq!(report["now"], json!([1, 2]));
    assert_eq!(report["random"], json!([vec![7; 16], vec![7; 16]]));
    assert_eq!(report["most"], 65_536);
}
