//! Derivations that can't go on: transient trouble is tried again, the rest ends in exactly one failure event.

use cofferdam_sdk::{
    Failure,
    executor::ExecutorError,
    rpc::Code,
    testing::{Host, Run, event},
};
use serde_json::{Value, json};

use super::support::*;

fn approve(host: &mut Host, plan_id: &str) -> Run {
    run(host, event(APPROVED, json!({"plan_id": plan_id, "story_id": "story-9", "correlation_id": "c"})))
}

#[track_caller]
fn failure(run: &Run, kind: &str) -> Value {
    assert_eq!(run.result, Ok(()));
    assert!(run.jobs.is_empty());
    assert_eq!(run.subjects(), [FAILED]);
    assert_eq!(run.metric("task_derivation_failed"), 1.0);
    assert_eq!(run.metrics.last().unwrap().labels, [("reason".to_owned(), kind.to_owned())]);
    let message = run.published[0].json();
    assert!(message["reason"].as_str().unwrap().starts_with(&format!("{kind}: ")), "{message}");
    message
}

#[test]
fn contract_2_3_failed_an_unknown_plan_fails_for_good() {
    let mut host = host();
    let message = failure(&approve(&mut host, "plan-2"), "plan_not_found");
    assert_eq!((&message["plan_id"], &message["story_id"]), (&json!("plan-2"), &json!("story-9")));
    assert_eq!((&message["status"], &message["requires_manual_review"]), (&json!("failed"), &json!(true)));
    assert_eq!(
        (&message["derivation_request_id"], &message["correlation_id"]),
        (&json!("derive-plan-2"), &json!("c"))
    );
    assert!(message["occurred_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(host.value::<Value>("derivation/plan-2", "record").unwrap()["status"], "failed");
}

#[test]
fn contract_2_1_idempotency_key_of_each_end_is_another() {
    let mut host = host();
    failure(&approve(&mut host, "plan-2"), "plan_not_found");
    assert!(approve(&mut host, "plan-2").acked_without_effect(), "an exact repeat");
    let again = run(&mut host, event(APPROVED, json!({"plan_id": "plan-2", "timestamp": 2})));
    let first_key = failure(&again, "plan_not_found")["idempotency_key"].clone();
    let third = run(&mut host, event(APPROVED, json!({"plan_id": "plan-2", "timestamp": 3})));
    assert_ne!(failure(&third, "plan_not_found")["idempotency_key"], first_key);
}

#[test]
fn contract_2_1_consuming_planning_out_of_reach_is_tried_again_until_the_last_attempt() {
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Internal, Code::PermissionDenied] {
        let mut host = host().fails("planning", GET_PLAN, code, "no");
        let run = approve(&mut host, "plan-1");
        assert!(matches!(run.result, Err(Failure::Retry { .. })), "{code}: {:?}", run.result);
        assert!(host.cells().names().is_empty(), "{code}: nothing is open yet");
        failure(&approve(&mut host.attempt(3, true), "plan-1"), "planning_unavailable");
    }
}

#[test]
fn a_plan_without_a_story_fails() {
    let mut plan = plan();
    plan.story_id = " ".into();
    let run = run(&mut host_with(plan), event(APPROVED, json!({"plan_id": "plan-1"})));
    failure(&run, "invalid_plan");
}

#[test]
fn an_executor_that_refuses_fails_the_derivation() {
    for error in [
        ExecutorError::Denied("no grant".into()),
        ExecutorError::NotConfigured("no executor".into()),
        ExecutorError::Limit("too long".into()),
    ] {
        failure(&approve(&mut host().refuses_jobs(error), "plan-1"), "executor_refused");
    }
    let mut host = host().refuses_jobs(ExecutorError::Unavailable("bus".into()));
    assert!(matches!(approve(&mut host, "plan-1").result, Err(Failure::Retry { .. })));
    failure(&approve(&mut host.attempt(3, true), "plan-1"), "executor_unavailable");
}

#[test]
fn a_prompt_over_the_executors_limit_fails_the_derivation() {
    let mut plan = plan();
    plan.description = "x".repeat(300 << 10);
    failure(&approve(&mut host_with(plan), "plan-1"), "executor_refused");
}
