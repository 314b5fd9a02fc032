//! Time-outs and pauses: every attempt has its time, whoever else has a hand in the record.

use cofferdam_sdk::{
    publish::EmitError,
    testing::{EPOCH, Host, Run, event},
};
use serde_json::{Value, json};

use super::support::*;

/// Opens a derivation; what was done for it.
fn opened() -> (Host, Run) {
    let mut host = host();
    let run = open(&mut host);
    (host, run)
}

fn attempt(host: &Host, number: usize) -> Value {
    record(host)["attempts"][number - 1].clone()
}

#[test]
fn contract_9_a_submitted_attempt_has_its_time_out_scheduled() {
    let (host, run) = opened();
    let timer = timer(&run, TIMEOUT);
    let opened = record(&host)["attempts"][0]["submitted_at"].clone();
    let message = timer.json();
    for body in [&message, &message["payload"]] {
        assert_eq!((&body["plan_id"], &body["story_id"]), (&json!("plan-1"), &json!("story-1")));
        assert_eq!((&body["derivation_id"], &body["attempt"]), (&json!("derive-plan-1"), &json!(1)));
        assert_eq!((&body["run"], &body["deliberation_id"]), (&json!(1), &Value::Null));
    }
    assert_eq!((&message["event_type"], &message["producer"]), (&json!(TIMEOUT), &json!("prompt-builder")));
    assert_eq!(record(&host)["timer"]["id"], timer.id.as_str());
    let read = |value: &Value| cofferdam_sdk::fleet::Timestamp::read(value).unwrap();
    let due = cofferdam_sdk::fleet::Timestamp::from_nanos(timer.at);
    assert_eq!(due.millis_since(read(&opened)), 120_000);
    assert_eq!(read(&message["timestamp"]).unix_seconds(), due.unix_seconds());
}

#[test]
fn contract_4_failure_the_time_out_resubmits_up_to_max_retries_and_then_fails() {
    let (mut host, mut last) = opened();
    for number in 2..=4 {
        let fire = fired(timer(&last, TIMEOUT), 0);
        last = run(&mut host, fire);
        assert_eq!((last.result.clone(), last.jobs.len()), (Ok(()), 1), "attempt {number}");
        assert_eq!(metadata(&last, "attempt"), number.to_string());
        assert!(last.jobs[0].job.prompt.contains("did not come through"));
        assert!(last.published.is_empty() && last.cancelled.is_empty());
        assert_eq!(attempt(&host, number - 1)["rejected"], "timeout: no answer within 120 s");
    }
    let end = run(&mut host, fired(timer(&last, TIMEOUT), 0));
    assert_eq!((end.subjects(), end.jobs.len(), end.timers.len()), (vec![FAILED], 0, 0));
    let message = end.published[0].json();
    assert_eq!(message["reason"], "timeout: no answer within 120 s (attempt 4 of 4)");
    assert_eq!(message["requires_manual_review"], true);
    assert_eq!(end.metrics.last().unwrap().labels, [("reason".to_owned(), "timeout".to_owned())]);
    assert!(run(&mut host, fired(timer(&last, TIMEOUT), 1)).acked_without_effect(), "once");
}

#[test]
fn contract_4_config_the_time_out_is_configuration() {
    for (seconds, expected) in [(10, 10), (0, 300)] {
        let mut host = host().config("timeout_seconds", seconds);
        let run = open(&mut host);
        let submitted = run.jobs[0].job.timeout_seconds;
        assert_eq!(u64::from(submitted), seconds, "the executor has its own default");
        let at = timer(&run, TIMEOUT).at - EPOCH;
        let opened =
            cofferdam_sdk::fleet::Timestamp::read(&record(&host)["opened_at"]).unwrap().nanos() - EPOCH;
        assert_eq!((at - opened) / SECOND, expected);
    }
}

#[test]
fn contract_9_a_time_out_of_an_attempt_that_is_no_longer_out_has_no_effect() {
    let rejected = |host: &mut Host| {
        let run = run(host, event(REJECTED, json!({"plan_id": "plan-1", "attempt": 1, "kind": "no_tasks"})));
        assert_eq!(run.result, Ok(()));
        run
    };
    let (mut host, first) = opened();
    let fire = fired(timer(&first, TIMEOUT), 0);
    let second = rejected(&mut host);
    assert_eq!(second.cancelled, [timer(&first, TIMEOUT).id.as_str()], "it is taken back");
    assert!(run(&mut host, fire.clone()).acked_without_effect(), "another attempt is out");
    complete(&mut host);
    assert!(run(&mut host, fired(timer(&second, TIMEOUT), 0)).acked_without_effect(), "it has ended");

    let again = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1", "n": 2})));
    assert_eq!((again.jobs.len(), metadata(&again, "run")), (1, "2"));
    assert!(run(&mut host, fire).acked_without_effect(), "that of an earlier derivation's attempt 1");
    let foreign = json!({"plan_id": "plan-9", "attempt": 1});
    assert!(run(&mut host, event(TIMEOUT, foreign)).acked_without_effect(), "nobody knows the plan");
}

#[test]
fn contract_9_a_time_out_of_a_third_party_counts_if_it_is_about_the_attempt_that_is_out() {
    let told = |attempt: u32, id: Value| {
        event(TIMEOUT, json!({"plan_id": "plan-1", "attempt": attempt, "deliberation_id": id}))
    };
    let (mut host, _) = opened();
    change(&mut host, |record| record["attempts"][0]["deliberation_id"] = "d1".into());
    assert_eq!(run(&mut host, told(1, json!("d1"))).jobs.len(), 1);
    assert!(run(&mut host, told(2, json!("d1"))).acked_without_effect(), "d1 was the first attempt");
    assert!(run(&mut host, told(3, Value::Null)).acked_without_effect());
    assert_eq!(run(&mut host, told(2, Value::Null)).jobs.len(), 1);
}

#[test]
fn contract_9_a_derivation_that_ends_takes_its_timer_back() {
    let (mut host, first) = opened();
    let failed = run(&mut host, event(REJECTED, json!({"plan_id": "plan-1", "kind": "planning_error"})));
    assert_eq!(failed.subjects(), [FAILED]);
    assert_eq!(failed.cancelled, [timer(&first, TIMEOUT).id.as_str()]);
    assert_eq!(record(&host).get("timer"), None);
    let second = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1", "n": 1})));
    assert!(second.cancelled.is_empty());
    complete(&mut host);
    let third = run(&mut host, event(APPROVED, json!({"plan_id": "plan-1", "n": 2})));
    assert_eq!(third.cancelled, [timer(&second, TIMEOUT).id.as_str()], "dependency-analyzer could not");
}

#[test]
fn an_answer_that_is_being_stored_has_more_time() {
    let (mut host, first) = opened();
    let answered = timer(&first, TIMEOUT).at - 20 * SECOND;
    change(&mut host, |record| {
        record["attempts"][0]["answered_at"] = json!(answered as f64 / 1e9);
    });
    let waiting = run(&mut host, fired(timer(&first, TIMEOUT), 0));
    assert!(waiting.jobs.is_empty() && waiting.published.is_empty());
    let timer = timer(&waiting, TIMEOUT);
    assert_eq!((timer.at - answered + SECOND / 2) / SECOND, 300);
    let over = run(&mut host, fired(timer, 0));
    assert_eq!((over.jobs.len(), metadata(&over, "attempt")), (1, "2"));
    let rejected = attempt(&host, 1)["rejected"].clone();
    assert!(rejected.as_str().unwrap().starts_with("timeout: its answer came"), "{rejected}");
}

#[test]
fn a_time_out_that_found_no_host_gives_the_attempt_its_time_anew() {
    let (mut host, first) = opened();
    let late = fired(timer(&first, TIMEOUT), 600);
    let waiting = run(&mut host, late.clone());
    assert!(waiting.jobs.is_empty() && waiting.published.is_empty());
    let timer = timer(&waiting, TIMEOUT);
    assert_eq!(timer.at - late.timestamp, 120 * SECOND);
    assert_eq!(run(&mut host, fired(timer, 3)).jobs.len(), 1);
}

#[test]
fn contract_4_config_a_model_is_asked_again_after_a_pause() {
    let mut host = patient_host(plan());
    let first = open(&mut host);
    let rejection =
        event(REJECTED, json!({"plan_id": "plan-1", "kind": "no_tasks", "detail": "none: at all"}));
    let at = rejection.timestamp;
    let resting = run(&mut host, rejection);
    assert!(resting.jobs.is_empty() && resting.published.is_empty());
    assert_eq!(resting.cancelled, [timer(&first, TIMEOUT).id.as_str()]);
    let due = timer(&resting, DUE).clone();
    assert_eq!(((due.at - at) / SECOND, due.json()["attempt"].clone()), (5, json!(2)));
    assert_eq!(record(&host)["attempt"], 1);

    for (subject, message) in [
        (REJECTED, json!({"plan_id": "plan-1", "kind": "timeout", "attempt": 1})),
        (TIMEOUT, json!({"plan_id": "plan-1", "attempt": 1})),
        (DUE, json!({"plan_id": "plan-1", "attempt": 3})),
        (DUE, json!({"plan_id": "plan-1", "attempt": 2, "run": 9})),
    ] {
        let run = run(&mut host, cofferdam_sdk::Event { timestamp: at + SECOND, ..event(subject, &message) });
        assert!(run.acked_without_effect(), "{subject} {message}: {run:?}");
    }
    let second = run(&mut host, fired(&due, 0));
    assert_eq!((second.jobs.len(), metadata(&second, "attempt")), (1, "2"));
    assert!(second.jobs[0].job.prompt.contains("no task could be found"), "{}", second.jobs[0].job.prompt);
    assert!(second.jobs[0].job.prompt.contains("none: at all"));
    assert!(second.cancelled.is_empty(), "it has fired");
    assert_eq!(timer(&second, TIMEOUT).json()["attempt"], 2);
    assert!(run(&mut host, fired(&due, 0)).acked_without_effect(), "once");
}

/// Of two timers with one key, one is never set.
#[test]
fn the_pause_before_each_attempt_has_a_key_of_its_own() {
    let mut host = patient_host(plan());
    open(&mut host);
    let keys = [1, 2].map(|attempt| {
        let rejected = json!({"plan_id": "plan-1", "attempt": attempt, "kind": "no_tasks"});
        let paused = run(&mut host, event(REJECTED, rejected));
        let due = timer(&paused, DUE);
        assert_eq!(run(&mut host, fired(due, 0)).jobs.len(), 1);
        due.json()["idempotency_key"].to_string()
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn contract_9_an_answer_that_comes_during_the_pause_ends_it() {
    let mut host = patient_host(plan());
    open(&mut host);
    let resting = run(&mut host, event(REJECTED, json!({"plan_id": "plan-1", "kind": "no_tasks"})));
    complete(&mut host);
    assert!(run(&mut host, fired(timer(&resting, DUE), 0)).acked_without_effect());
}

#[test]
fn a_derivation_without_a_timer_gets_one_from_the_next_trigger() {
    let (mut host, _) = opened();
    // As an older version left it, an hour ago.
    change(&mut host, |record| {
        record.as_object_mut().unwrap().remove("timer");
        record["opened_at"] = json!((EPOCH - 3_600 * SECOND) as f64 / 1e9);
        record["attempts"][0]["submitted_at"] = record["opened_at"].clone();
    });
    let trigger = event(REQUESTED, json!({"plan_id": "plan-1"}));
    let woken = run(&mut host, trigger.clone());
    let at_once = timer(&woken, TIMEOUT).clone();
    assert_eq!((woken.jobs.len(), at_once.at), (0, trigger.timestamp));
    assert_eq!(run(&mut host, fired(&at_once, 0)).jobs.len(), 1);
    let guarded = run(&mut host, event(REQUESTED, json!({"plan_id": "plan-1", "n": 1})));
    assert!(guarded.timers.is_empty() && guarded.cancelled.is_empty());
}

#[test]
fn a_pause_that_nobody_ended_is_ended_by_a_trigger_and_a_time_out() {
    let mut host = patient_host(plan());
    open(&mut host);
    let resting = run(&mut host, event(REJECTED, json!({"plan_id": "plan-1", "kind": "no_tasks"})));
    let late = timer(&resting, DUE).at + 100 * SECOND;
    let trigger = cofferdam_sdk::Event { timestamp: late, ..event(REQUESTED, json!({"plan_id": "plan-1"})) };
    let woken = run(&mut host, trigger);
    let second = run(&mut host, fired(timer(&woken, TIMEOUT), 0));
    assert_eq!((second.jobs.len(), metadata(&second, "attempt")), (1, "2"));
}

#[test]
fn without_the_grants_there_are_neither_time_outs_nor_pauses_and_the_log_says_so() {
    let denied = |subject: &str| EmitError::Denied(format!("no grant for {subject}"));
    let mut host =
        patient_host(plan()).refuses_publish(TIMEOUT, denied(TIMEOUT)).refuses_publish(DUE, denied(DUE));
    let first = open(&mut host);
    assert!(first.timers.is_empty());
    assert!(
        first.logged(cofferdam_sdk::log::Level::Warn).iter().any(|line| line.contains("no timer is set"))
    );
    let second = run(&mut host, event(REJECTED, json!({"plan_id": "plan-1", "kind": "no_tasks"})));
    assert_eq!((second.jobs.len(), second.timers.len()), (1, 0));
}

#[test]
fn another_plugins_timer_is_left_to_fire() {
    let (mut host, _) = opened();
    change(&mut host, |record| record["timer"]["by"] = "plan-reader".into());
    let run = run(&mut host, event(REJECTED, json!({"plan_id": "plan-1", "kind": "no_tasks"})));
    assert_eq!((run.result, run.cancelled.len(), run.jobs.len()), (Ok(()), 0, 1));
}
