//! The rate limit of a requester: what is over it waits, and nothing is lost.

use cofferdam_sdk::{
    Event,
    testing::{Host, Run, event},
};
use fleet_proto::task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext};
use serde_json::json;

use super::support::*;

/// A limit of two a minute, and a Planning that knows every plan.
fn limited() -> Host {
    host().config("rate_limit", 2).answers("planning", GET_PLAN, |request: GetPlanContextRequest| {
        let plan = PlanContext { plan_id: request.plan_id, story_id: "s".into(), ..PlanContext::default() };
        Ok(GetPlanContextResponse { plan_context: Some(plan) })
    })
}

/// Asks for a plan and hands its derivation's question to its requester.
fn ask(host: &mut Host, plan_id: &str, by: &str) -> Run {
    let asked = run(host, event(REQUESTED, json!({"plan_id": plan_id, "requested_by": by, "roles": ["qa"]})));
    assert_eq!((asked.subjects(), asked.jobs.len(), asked.calls.len()), (vec![QUEUED], 0, 0));
    assert_eq!(asked.metric("task_derivation_requests_received"), 1.0);
    let record: serde_json::Value = host.value(&format!("derivation/{plan_id}"), "record").unwrap();
    assert_eq!((&record["status"], &record["attempt"]), (&json!("open"), &json!(0)));
    run(host, event(QUEUED, asked.published[0].json()))
}

fn begin(host: &mut Host, due: Event) -> Run {
    let run = run(host, due);
    assert_eq!((run.result.clone(), run.jobs.len()), (Ok(()), 1));
    run
}

#[test]
fn contract_7_requests_within_the_limit_begin_at_once() {
    let mut host = limited();
    for plan in ["a", "b"] {
        let answer = ask(&mut host, plan, "ann");
        assert_eq!((answer.subjects(), answer.timers.len()), (vec![DUE], 0));
        let due = answer.published[0].json();
        let begun = begin(&mut host, event(DUE, &due));
        assert_eq!((metadata(&begun, "attempt"), metadata(&begun, "run")), ("1", "1"));
        assert!(run(&mut host, event(DUE, &due)).acked_without_effect(), "once");
        let record: serde_json::Value = host.value(&format!("derivation/{plan}"), "record").unwrap();
        assert_eq!(record["roles"], json!(["QA"]));
    }
}

#[test]
fn contract_7_what_is_over_the_limit_waits_for_its_turn() {
    let mut host = limited();
    ask(&mut host, "a", "ann");
    ask(&mut host, "b", "ann");
    let third = ask(&mut host, "c", "ann");
    assert!(third.published.is_empty());
    let timer = timer(&third, DUE).clone();
    assert!(!third.logged(cofferdam_sdk::log::Level::Warn).is_empty());
    let again = run(&mut host, event(APPROVED, json!({"plan_id": "c", "approved_by": "eve"})));
    assert!(again.published.is_empty() && again.jobs.is_empty(), "it is open already");
    assert_eq!(ask(&mut host, "d", "eve").subjects(), [DUE], "another requester has turns of its own");
    let begun = begin(&mut host, fired(&timer, 0));
    assert_eq!(begun.jobs[0].job.plan_id.as_deref(), Some("c"));
}

#[test]
fn contract_7_requesters_without_a_name_share_their_turns() {
    let mut host = limited();
    for (plan, named) in [("a", json!(null)), ("b", json!("  "))] {
        let asked = run(&mut host, event(REQUESTED, json!({"plan_id": plan, "requested_by": named})));
        assert_eq!(asked.on(QUEUED)[0]["requester"], "unknown");
    }
    let long = run(&mut host, event(REQUESTED, json!({"plan_id": "c", "requested_by": "é".repeat(5_000)})));
    assert_eq!(long.on(QUEUED)[0]["requester"].as_str().unwrap().chars().count(), 200);
}

#[test]
fn contract_7_without_a_limit_nobody_waits() {
    let mut host = limited();
    let asked = run(&mut host, event(REQUESTED, json!({"plan_id": "a"})));
    let mut host = host.config("rate_limit", 0);
    let answer = run(&mut host, event(QUEUED, asked.published[0].json()));
    assert_eq!((answer.subjects(), answer.wrote), (vec![DUE], false), "one that was asked before");
    assert_eq!(run(&mut host, event(REQUESTED, json!({"plan_id": "b"}))).jobs.len(), 1);
}

#[test]
fn nothing_is_rejected_or_timed_out_of_a_derivation_that_waits_for_its_turn() {
    let mut host = limited();
    run(&mut host, event(REQUESTED, json!({"plan_id": "a"})));
    for (subject, attempt) in [(REJECTED, 1), (TIMEOUT, 1), (TIMEOUT, 0)] {
        let message = json!({"plan_id": "a", "attempt": attempt, "kind": "no_tasks"});
        let run = run(&mut host, event(subject, message));
        assert!(run.acked_without_effect(), "{subject}: {run:?}");
    }
}

#[test]
fn without_the_grant_to_ask_nobody_waits_and_the_log_says_so() {
    let denied = cofferdam_sdk::publish::EmitError::Denied("no grant".into());
    let mut host = limited().refuses_publish(QUEUED, denied);
    let run = run(&mut host, event(REQUESTED, json!({"plan_id": "a"})));
    assert_eq!((run.result.clone(), run.jobs.len()), (Ok(()), 1));
    assert!(run.logged(cofferdam_sdk::log::Level::Warn).iter().any(|line| line.contains("without its turn")));
}

#[test]
fn without_the_grant_to_be_answered_nobody_waits_and_the_log_says_so() {
    let denied = cofferdam_sdk::publish::EmitError::Denied("no grant".into());
    let mut host = limited().refuses_publish(DUE, denied);
    let run = run(&mut host, event(REQUESTED, json!({"plan_id": "a"})));
    assert_eq!((run.result.clone(), run.jobs.len(), run.subjects().len()), (Ok(()), 1, 0));
    assert!(run.logged(cofferdam_sdk::log::Level::Warn).iter().any(|line| line.contains("without its turn")));
}

#[test]
fn a_derivation_whose_turn_never_comes_begins_with_the_next_request() {
    let mut host = limited();
    let asked = run(&mut host, event(REQUESTED, json!({"plan_id": "a"})));
    assert_eq!((asked.subjects(), asked.timers.len()), (vec![QUEUED], 0), "and the question is lost");
    let after = |seconds: u64, by: &str| {
        let again = event(REQUESTED, json!({"plan_id": "a", "requested_by": by}));
        Event { timestamp: again.timestamp + seconds * SECOND, ..again }
    };
    let soon = run(&mut host, after(100, "eve"));
    assert_eq!((soon.result.clone(), soon.jobs.len()), (Ok(()), 0), "its turn may come yet");
    let begun = begin(&mut host, after(130, "bob"));
    assert_eq!((metadata(&begun, "attempt"), begun.timers.len()), ("1", 1));
    assert!(run(&mut host, after(300, "joe")).jobs.is_empty(), "once");
    let due = json!({"plan_id": "a", "attempt": 1, "run": 1});
    assert!(run(&mut host, event(DUE, due)).acked_without_effect(), "its turn comes after all");
}

/// Of two messages with one key, one is lost.
#[test]
fn questions_and_answers_have_keys_of_their_own() {
    let mut host = limited();
    let mut keys = std::collections::BTreeSet::new();
    for plan in ["a", "b"] {
        let asked = run(&mut host, event(REQUESTED, json!({"plan_id": plan, "requested_by": "ann"})));
        let answer = run(&mut host, event(QUEUED, asked.published[0].json()));
        for message in [&asked.published[0], &answer.published[0]] {
            keys.insert(message.json()["idempotency_key"].to_string());
        }
    }
    assert_eq!(keys.len(), 4, "{keys:?}");
}
