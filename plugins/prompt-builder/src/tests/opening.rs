//! Triggers: which open a derivation, and what the executor gets.

use cofferdam_sdk::{
    Event, Failure,
    testing::{Host, event},
};
use serde_json::{Value, json};

use super::support::*;

/// Opens a derivation; when that was.
fn open_at(host: &mut Host) -> u64 {
    let event = event(APPROVED, json!({"plan_id": "plan-1"}));
    let at = event.timestamp;
    assert_eq!(run(host, event).jobs.len(), 1);
    at
}

/// A request so many seconds after a point in time.
fn later(at: u64, seconds: u64, data: Value) -> Event {
    Event { timestamp: at + seconds * SECOND, ..event(REQUESTED, data) }
}

#[test]
fn contract_4_config_an_approved_plan_becomes_one_job() {
    let mut host = host();
    let run = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1", "approved_by": "po"})));
    assert_eq!(run.result, Ok(()));
    let job = &run.jobs[0].job;
    assert_eq!((job.task_id.as_str(), job.role.as_str()), ("derive-plan-1", "SYSTEM"));
    assert_eq!((job.plan_id.as_deref(), job.story_id.as_deref()), (Some("plan-1"), Some("story-1")));
    assert_eq!(job.model.as_deref(), Some("Qwen/Qwen2.5-7B-Instruct"));
    assert_eq!((job.agents.len(), job.agents[0].id.as_str()), (1, "task-deriver"));
    assert_eq!((job.timeout_seconds, job.max_retries), (120, 3));
    assert_eq!((metadata(&run, "task_id"), metadata(&run, "attempt")), ("derive-plan-1", "1"));
    assert_eq!((metadata(&run, "temperature"), metadata(&run, "max_tokens")), ("0.3", "2048"));
    assert_eq!(run.metric("task_derivation_requests_received"), 1.0);
    let record = record(&host);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("open"), &json!(1)));
    assert_eq!(record["attempts"][0]["job_id"], run.jobs[0].id.as_str());
    assert_eq!((&record["requested_by"], &record["title"]), (&json!("po"), &json!("Guest checkout")));
}

#[test]
fn contract_2_3_a_request_opens_one_too_enveloped_or_bare() {
    for (mode, message) in [
        ("bare", json!({"plan_id": "plan-1", "story_id": "story-1", "roles": "dev", "correlation_id": "c"})),
        (
            "enveloped",
            json!({"event_type": REQUESTED, "correlation_id": "c", "idempotency_key": "k",
                   "payload": {"plan_id": "plan-1", "roles": ["dev"]}}),
        ),
    ] {
        let mut host = host();
        let run = run(&mut host, event(REQUESTED, message));
        assert_eq!((run.result, run.jobs.len()), (Ok(()), 1), "{mode}");
        let record = record(&host);
        assert_eq!(record["roles"], json!(["DEVELOPER"]), "{mode}");
        assert_eq!(record["cause"]["correlation_id"], "c", "{mode}");
    }
}

#[test]
fn contract_9_a_second_trigger_while_one_is_open_has_no_effect() {
    let mut host = host();
    let opened = open_at(&mut host);
    let second = run(&mut host, later(opened, 150, json!({"plan_id": "plan-1"})));
    assert_eq!(second.result, Ok(()));
    assert!(second.jobs.is_empty() && second.published.is_empty() && second.calls.is_empty());
    assert_eq!(second.metric("task_derivation_requests_received"), 1.0);
    assert_eq!(record(&host)["run"], 1);
}

#[test]
fn contract_9_both_triggers_in_any_order_open_one_derivation() {
    for (first, second) in [(APPROVED, REQUESTED), (REQUESTED, APPROVED)] {
        let mut host = host();
        assert_eq!(run(&mut host, event(first, json!({"plan_id": "plan-1"}))).jobs.len(), 1);
        for n in 0..3 {
            let again = run(&mut host, event(second, json!({"plan_id": "plan-1", "n": n})));
            assert_eq!((again.result.clone(), again.jobs.len(), again.timers.len()), (Ok(()), 0, 0));
            assert!(again.published.is_empty() && again.cancelled.is_empty() && again.calls.is_empty());
        }
        assert_eq!(record(&host)["run"], 1, "{first}");
    }
}

#[test]
fn contract_9_a_trigger_that_is_read_late_belongs_to_the_derivation_that_was_open_when_it_was_made() {
    let mut host = host();
    let at = open_at(&mut host);
    change(&mut host, |record| {
        record["status"] = "completed".into();
        record["outcome"] = json!({"at": (at + 10 * SECOND) as f64 / 1e9, "task_count": 3});
    });
    let meanwhile = run(&mut host, later(at, 9, json!({"plan_id": "plan-1"})));
    assert_eq!((meanwhile.result.clone(), meanwhile.jobs.len()), (Ok(()), 0));
    assert_eq!(run(&mut host, later(at, 11, json!({"plan_id": "plan-1", "n": 1}))).jobs.len(), 1);
}

#[test]
fn contract_2_1_dedupe_the_same_message_again_has_no_effect_even_after_the_end() {
    let mut host = host();
    let mut approval = event(APPROVED, json!({"plan_id": "plan-1", "timestamp": "2026-01-01T00:00:00Z"}));
    let mut request = event(REQUESTED, json!({"plan_id": "plan-1"}));
    assert_eq!(run(&mut host, approval.clone()).jobs.len(), 1);
    assert!(run(&mut host, request.clone()).jobs.is_empty());
    complete(&mut host);
    // Published again, so with another sequence: only the content tells.
    approval.id.push_str("-again");
    request.id.push_str("-again");
    assert!(run(&mut host, approval).acked_without_effect());
    assert!(run(&mut host, request).acked_without_effect(), "it was acked while a derivation was open");
}

#[test]
fn contract_4_persist_a_new_request_after_the_end_reopens() {
    let mut host = host();
    open(&mut host);
    complete(&mut host);
    let again = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1", "timestamp": 1})));
    assert_eq!((again.jobs.len(), metadata(&again, "attempt"), metadata(&again, "run")), (1, "1", "2"));
    let record = record(&host);
    assert_eq!((&record["status"], &record["run"]), (&json!("open"), &json!(2)));
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn roles_come_from_the_request_else_from_the_plan_else_a_developer() {
    let roles = |plan_roles: &[&str], request: serde_json::Value| {
        let mut plan = plan();
        plan.roles = plan_roles.iter().map(ToString::to_string).collect();
        let mut host = host_with(plan);
        let mut message = json!({"plan_id": "plan-1"});
        message["roles"] = request;
        assert_eq!(run(&mut host, event(REQUESTED, message)).result, Ok(()));
        record(&host)["roles"].clone()
    };
    assert_eq!(roles(&["qa"], json!(["arch", "DEV"])), json!(["ARCHITECT", "DEVELOPER"]));
    assert_eq!(roles(&["arch"], json!("qa, dev")), json!(["QA", "DEVELOPER"]));
    assert_eq!(roles(&["qa"], json!(null)), json!(["QA"]));
    assert_eq!(roles(&["qa"], json!(["SYSTEM", "wizard"])), json!(["QA"]));
    assert_eq!(roles(&[], json!([])), json!(["DEVELOPER"]));
}

#[test]
fn contract_2_1_consuming_a_message_without_identity_is_rejected() {
    for (subject, message) in [
        (APPROVED, json!("not an object").to_string()),
        (APPROVED, "{".to_owned()),
        (APPROVED, json!({"story_id": "s"}).to_string()),
        (REQUESTED, json!({"plan_id": "  "}).to_string()),
        (REQUESTED, json!({"plan_id": null}).to_string()),
        (REJECTED, json!({"kind": "no_tasks"}).to_string()),
    ] {
        let run = run(&mut host(), event(subject, &message));
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{subject} {message}: {:?}", run.result);
        assert!(run.calls.is_empty(), "{message}");
    }
}

#[test]
fn contract_7_metrics_a_request_counts_whichever_attempt_follows_it() {
    let mut host = host().attempt(2, false);
    let run = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1"})));
    assert_eq!((run.jobs.len(), run.metric("task_derivation_requests_received")), (1, 1.0));
}

#[test]
fn contract_2_3_an_approved_decision_derives_nothing() {
    let manifest = include_str!("../../plugin.toml");
    let subjects: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("subject = ")).collect();
    let foreign: Vec<&&str> = subjects.iter().filter(|subject| !subject.contains("\"cofferdam.")).collect();
    assert_eq!(foreign, [&"\"planning.plan.approved\"", &"\"task.derivation.requested\""]);
}

#[test]
fn a_story_that_request_and_plan_agree_on_is_no_warning() {
    for of_plan in ["story-1", ""] {
        let mut host =
            host_with(fleet_proto::task_derivation::v1::PlanContext { story_id: of_plan.into(), ..plan() });
        run(&mut host, event(REQUESTED, json!({"plan_id": "plan-1", "story_id": "story-1"})));
        assert_eq!(
            (&record(&host)["story_id"], &record(&host)["warnings"]),
            (&json!("story-1"), &json!([])),
            "{of_plan:?}"
        );
    }
}
