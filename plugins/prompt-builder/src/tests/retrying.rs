//! Rejected answers: asked for again, with what was wrong, up to the limit.

use cofferdam_sdk::{
    executor::ExecutorError,
    testing::{Host, Run, event},
};
use serde_json::{Value, json};

use super::support::*;

fn rejected(attempt: u32, kind: &str) -> Value {
    json!({"plan_id": "plan-1", "story_id": "story-1", "derivation_id": "derive-plan-1", "attempt": attempt,
           "kind": kind, "detail": "TASK-001 needs TASK-002", "deliberation_id": format!("d{attempt}")})
}

fn reject(host: &mut Host, attempt: u32, kind: &str) -> Run {
    run(host, event(REJECTED, rejected(attempt, kind)))
}

#[test]
fn contract_4_failure_a_rejected_answer_is_asked_for_again_with_what_was_wrong() {
    let mut host = host();
    let first = open(&mut host).jobs[0].job.prompt.clone();
    let run = reject(&mut host, 1, "circular_dependency");
    assert_eq!((run.jobs.len(), metadata(&run, "attempt")), (1, "2"));
    let prompt = &run.jobs[0].job.prompt;
    assert!(prompt.starts_with(&first), "{prompt}");
    assert!(prompt.contains("circle") && prompt.contains("TASK-001 needs TASK-002"), "{prompt}");
    assert!(run.calls.is_empty() && run.published.is_empty());
    let record = record(&host);
    assert_eq!((&record["attempt"], &record["attempts"][0]["deliberation_id"]), (&json!(2), &json!("d1")));
    let third = reject(&mut host, 2, "no_tasks");
    assert_eq!(third.jobs[0].job.prompt.matches("rejected").count(), 1, "only the last answer's fault");
}

#[test]
fn contract_4_failure_after_the_last_retry_it_fails_exactly_once() {
    let mut host = host();
    open(&mut host);
    for attempt in 1..=3 {
        assert_eq!(reject(&mut host, attempt, "no_tasks").jobs.len(), 1, "attempt {attempt}");
    }
    let last = reject(&mut host, 4, "too_many_tasks");
    assert_eq!((last.subjects(), last.jobs.len()), (vec![FAILED], 0));
    let message = last.published[0].json();
    assert!(message["reason"].as_str().unwrap().starts_with("too_many_tasks: "), "{message}");
    assert_eq!(message["derivation_request_id"], "d4");
    assert_eq!(last.metric("task_derivation_failed"), 1.0);
    assert!(reject(&mut host, 4, "no_tasks").acked_without_effect());
    assert_eq!(host.cells().get("derivation/plan-1", "prompt"), None);
}

#[test]
fn contract_4_config_max_retries_is_configuration() {
    let mut host = host().config("max_retries", 0);
    open(&mut host);
    assert_eq!(reject(&mut host, 1, "no_tasks").subjects(), [FAILED]);
}

#[test]
fn contract_9_rejected_of_an_earlier_attempt_or_a_repeat_has_no_effect() {
    let mut host = host();
    assert!(reject(&mut host, 1, "no_tasks").acked_without_effect(), "nothing is open");
    open(&mut host);
    let first = event(REJECTED, rejected(1, "no_tasks"));
    assert_eq!(run(&mut host, first.clone()).jobs.len(), 1);
    assert!(run(&mut host, first).acked_without_effect());
    assert!(reject(&mut host, 1, "timeout").acked_without_effect());
    complete(&mut host);
    assert!(reject(&mut host, 2, "no_tasks").acked_without_effect());
}

#[test]
fn what_planning_refuses_is_not_asked_of_the_model_again() {
    let mut host = host();
    open(&mut host);
    let run = reject(&mut host, 1, "planning_error");
    assert_eq!((run.subjects(), run.jobs.len()), (vec![FAILED], 0));
}

#[test]
fn an_executor_that_refuses_the_retry_fails_the_derivation() {
    let mut host = host();
    open(&mut host);
    let mut host = host.refuses_jobs(ExecutorError::Denied("no".into()));
    assert_eq!(reject(&mut host, 1, "no_tasks").subjects(), [FAILED]);
}

#[test]
fn a_record_without_a_prompt_gets_one_anew() {
    let mut host = host();
    open(&mut host);
    let record = record(&host);
    let cells = cofferdam_sdk::testing::Cells::default();
    let mut host = host.sharing(cells);
    host.set_value("derivation/plan-1", "record", &record);
    let run = reject(&mut host, 1, "no_tasks");
    assert!(run.jobs[0].job.prompt.contains("Guest checkout"));
    assert!(host.cells().get("derivation/plan-1", "prompt").is_some());
}

#[test]
fn contract_4_failure_whatever_another_answer_may_mend_is_asked_for_again_and_named_at_the_end() {
    for kind in
        ["no_tasks", "truncated_json", "too_many_tasks", "circular_dependency", "agent_failed", "timeout"]
    {
        let mut host = host().config("max_retries", 1);
        open(&mut host);
        assert_eq!(reject(&mut host, 1, kind).jobs.len(), 1, "{kind}");
        let end = reject(&mut host, 2, kind);
        assert_eq!((end.subjects(), end.jobs.len()), (vec![FAILED], 0), "{kind}");
        let message = end.published[0].json();
        assert!(message["reason"].as_str().unwrap().starts_with(&format!("{kind}: ")), "{message}");
        assert_eq!(message["requires_manual_review"], true, "{kind}");
    }
}
