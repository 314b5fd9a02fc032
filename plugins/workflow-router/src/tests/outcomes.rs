//! What becomes of an action: section 5.4 of the fleet's contract.

use cofferdam_sdk::{
    Failure,
    log::Level,
    testing::{Host, Run, event},
};
use serde_json::{Value, json};

use super::support::*;

fn reason(run: &Run) -> Vec<&str> {
    let drops = run.metrics.iter().filter(|metric| metric.name == "workflow_dropped");
    drops.map(|metric| metric.labels[0].1.as_str()).collect()
}

fn last(host: Host, message: &Value) -> Run {
    host.attempt(3, true).run(crate::handle, event(WORK, message))
}

#[test]
fn contract_5_4_an_unknown_task_is_waited_for_and_told_at_last() {
    let message = act("commit_code", "developer");
    assert!(retried(&run(&mut host(), WORK, &message)));
    let given_up = last(host(), &message);
    assert!(matches!(given_up.result, Err(Failure::Reject(_))));
    assert_eq!((reason(&given_up), given_up.logged(Level::Error).len()), (vec!["unknown_task"], 1));
}

#[test]
fn contract_5_4_what_is_malformed_is_told_and_counted() {
    for (action, role) in [
        (json!("dance"), json!("developer")),
        (json!(""), json!("developer")),
        (json!(null), json!("qa")),
        (json!("commit_code"), json!("wizard")),
        (json!("commit_code"), json!(null)),
    ] {
        let message = json!({"task_id": "T", "action": action, "actor_role": role});
        let run = run(&mut opened(), WORK, &message);
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{message}");
        assert_eq!(reason(&run), ["malformed"]);
    }
    let nameless = host().run(crate::handle, event(WORK, json!({"action": "commit_code", "role": "dev"})));
    assert!(matches!(nameless.result, Err(Failure::Reject(_))));
    assert_eq!(reason(&nameless), ["malformed"]);
}

#[test]
fn contract_5_4_a_repeated_message_has_no_effect() {
    let mut host = opened();
    let commit = act("commit_code", "developer");
    assert_eq!(run(&mut host, WORK, &commit).result, Ok(()));
    let again = run(&mut host, WORK, &commit);
    assert!(again.acked_without_effect());
    assert_eq!(reason(&again), ["duplicate"]);
}

#[test]
fn contract_2_1_messages_are_the_same_by_their_payload_and_not_by_their_key_alone() {
    let enveloped = |payload: Value| json!({"event_type": WORK, "idempotency_key": "k", "correlation_id": "c", "payload": payload});
    let mut host = opened();
    run(&mut host, WORK, enveloped(act("commit_code", "developer")));
    run(&mut host, WORK, enveloped(act("claim_review", "architect")));
    assert_eq!(state(&host, "T"), "arch_reviewing");
    // One that was handed back is not known yet.
    let early = act("approve_tests", "qa");
    assert!(retried(&run(&mut host, WORK, &early)));
    run(&mut host, WORK, act("approve_design", "architect"));
    assert_eq!(run(&mut host, WORK, &early).result, Ok(()));
    assert_eq!(state(&host, "T"), "pending_po_approval");
}

#[test]
fn contract_5_4_what_is_older_than_the_task_by_more_than_five_seconds_is_stale() {
    let at = |time: &str, action: &str, role: &str| {
        let mut message = act(action, role);
        message["timestamp"] = json!(time);
        message
    };
    let mut host = opened();
    run(&mut host, WORK, at("2026-01-01T00:01:00Z", "commit_code", "developer"));
    let stale = run(&mut host, WORK, at("2026-01-01T00:00:54Z", "approve_design", "architect"));
    assert!(dropped(&stale));
    assert_eq!((reason(&stale), state(&host, "T")), (vec!["stale"], json!("pending_arch_review")));
    run(&mut host, WORK, at("2026-01-01T00:00:55Z", "approve_design", "architect"));
    assert_eq!(state(&host, "T"), "pending_qa", "five seconds are no matter");
}

#[test]
fn contract_5_4_a_transition_of_the_system_makes_nothing_stale() {
    let mut host = opened();
    let mut late = act("cancel", "system");
    late["action"] = json!("retry");
    late["timestamp"] = json!("2027-01-01T00:00:00Z");
    run(&mut host, WORK, late);
    let mut commit = act("commit_code", "developer");
    commit["timestamp"] = json!("2026-01-01T00:00:00Z");
    run(&mut host, WORK, commit);
    assert_eq!(state(&host, "T"), "pending_arch_review");
}

#[test]
fn contract_5_4_a_claim_that_moves_nothing_makes_nothing_stale() {
    let mut host = opened();
    for (time, action) in [("2026-01-01T00:01:00Z", "claim_task"), ("2026-01-01T00:00:00Z", "commit_code")] {
        let mut message = act(action, "developer");
        message["timestamp"] = json!(time);
        run(&mut host, WORK, message);
    }
    assert_eq!(state(&host, "T"), "pending_arch_review");
}

#[test]
fn contract_5_4_an_action_that_is_never_the_roles_is_a_violation() {
    let mut host = opened();
    let violation = does(&mut host, "approve_design", "developer");
    assert!(dropped(&violation));
    assert_eq!(violation.metric("workflow_rbac_violations"), 1.0);
    assert_eq!(violation.logged(Level::Warn).len(), 1);
    // Before anything else that may be wrong with it.
    does(&mut host, "cancel", "po");
    let over = does(&mut host, "approve_design", "developer");
    assert_eq!(over.metric("workflow_rbac_violations"), 1.0);
}

#[test]
fn contract_5_4_a_task_that_is_over_rejects_every_action() {
    for end in ["cancel", "discard_task"] {
        let mut host = opened();
        does(&mut host, end, "po");
        for (action, role) in STRAIGHT.into_iter().chain([("retry", "system"), ("cancel", "po")]) {
            let run = does(&mut host, action, role);
            assert!(dropped(&run), "{action}");
            assert_eq!((reason(&run), run.logged(Level::Warn).len()), (vec!["rejected"], 1));
        }
    }
}

#[test]
fn contract_5_4_a_guard_that_fails_rejects_before_the_state_is_asked() {
    let mut host = opened();
    let mut message = act("reject_design", "architect");
    message["feedback"] = json!("no");
    let run = does_as(&mut host, message);
    assert!(dropped(&run));
    assert_eq!((reason(&run), run.logged(Level::Warn).len()), (vec!["rejected"], 1));
}

#[test]
fn contract_5_4_what_is_early_is_tried_again_and_dropped_at_last() {
    let mut host = opened();
    let early = act("approve_design", "architect");
    assert!(retried(&run(&mut host, WORK, &early)));
    let given_up = last(opened(), &early);
    assert!(dropped(&given_up));
    assert_eq!((reason(&given_up), given_up.logged(Level::Warn).len()), (vec!["invalid_action"], 1));
    // It succeeds after its predecessor.
    run(&mut host, WORK, act("commit_code", "developer"));
    run(&mut host, WORK, &early);
    assert_eq!(state(&host, "T"), "pending_qa");
}

#[test]
fn what_was_dropped_at_last_is_known_when_it_comes_again() {
    let mut host = opened();
    let early = act("approve_design", "architect");
    assert!(dropped(&last(host.clone(), &early)));
    run(&mut host, WORK, act("commit_code", "developer"));
    let again = run(&mut host, WORK, &early);
    assert!(again.acked_without_effect());
    assert_eq!((reason(&again), state(&host, "T")), (vec!["duplicate"], json!("pending_arch_review")));
}

#[test]
fn an_agent_whose_clock_is_fast_makes_nobody_elses_work_stale() {
    let mut host = opened();
    for (time, (action, role)) in ["2036-01-01T00:00:00Z", ""].into_iter().zip(STRAIGHT) {
        let mut message = act(action, role);
        if !time.is_empty() {
            message["timestamp"] = json!(time);
        }
        run(&mut host, WORK, message);
    }
    assert_eq!(state(&host, "T"), "pending_qa");
}

#[test]
fn a_story_that_asks_an_open_task_again_is_not_counted() {
    let mut host = opened();
    let again = run(&mut host, OPEN, json!({"task_id": "T", "story_id": "S", "assign": true}));
    assert!(again.acked_without_effect());
    assert_eq!(again.metric("workflow_dropped"), 0.0);
}

#[test]
fn contract_5_4_only_what_is_accepted_has_effects() {
    let mut host = opened();
    let before = stored(&host, "T");
    for (action, role) in
        [("approve_design", "developer"), ("reject_design", "architect"), ("commit_code", "dev")]
    {
        let mut message = act(action, role);
        message["feedback"] = json!("short");
        message["artifacts"] = json!({});
        let run = does_as(&mut host, message);
        assert!(dropped(&run), "{action}");
    }
    let mut after = stored(&host, "T");
    after["seen"] = before["seen"].clone();
    assert_eq!(after, before, "but that they are known");
}

#[test]
fn contract_5_4_the_outcomes_are_tried_in_their_order() {
    let told = |host: &mut Host, message: &Value| -> Vec<String> {
        let run = run(host, WORK, message);
        assert!(run.published.is_empty(), "{message}");
        let violations = run.metrics.iter().filter(|metric| metric.name == "workflow_rbac_violations");
        reason(&run).into_iter().chain(violations.map(|_| "rbac_violation")).map(str::to_owned).collect()
    };
    let with = |action: &str, role: &str, key: &str, value: Value| {
        let mut message = act(action, role);
        message[key] = value;
        message
    };
    let none: [&str; 0] = [];
    assert_eq!(told(&mut host(), &act("dance", "wizard")), none, "unknown before malformed: it waits");
    let mut host = opened();
    let malformed = act("dance", "wizard");
    assert_eq!(told(&mut host, &malformed), ["malformed"]);
    assert_eq!(told(&mut host, &malformed), ["malformed"], "before repeated");
    does(&mut host, "claim_task", "developer");
    does(&mut host, "commit_code", "developer");
    let stale = with("approve_design", "developer", "timestamp", json!("2025-12-31T00:00:00Z"));
    assert_eq!(told(&mut host, &stale), ["stale"], "before a violation");
    assert_eq!(told(&mut host, &stale), ["duplicate"]);
    let short = |role: &str| with("reject_tests", role, "feedback", json!("no"));
    assert_eq!(told(&mut host, &short("developer")), ["rbac_violation"], "before a guard");
    assert_eq!(told(&mut host, &short("qa")), ["rejected"], "before the state is asked");
    assert_eq!(told(&mut host, &act("reject_tests", "qa")), none, "out of its order: it waits");
}
