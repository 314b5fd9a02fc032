//! What agents do to tasks: section 5 of the fleet's contract.

use cofferdam_sdk::{
    Failure,
    testing::{Host, Run},
};
use serde_json::{Value, json};

use super::support::*;

const WHY: &str = "the indexes are missing";

/// A task that is open and assigned.
fn opened() -> Host {
    let mut host = host();
    run(&mut host, CREATED, json!({"task_id": "T", "story_id": "S"}));
    host
}

fn act(action: &str, role: &str) -> Value {
    json!({"task_id": "T", "story_id": "S", "action": action, "actor_role": role, "feedback": WHY, "agent_id": "a-1"})
}

/// Each is a message of its own.
fn does(host: &mut Host, action: &str, role: &str) -> Run {
    does_as(host, act(action, role))
}

fn does_as(host: &mut Host, mut message: Value) -> Run {
    message["nonce"] = json!(history(host).len());
    run(host, WORK, message)
}

fn history(host: &Host) -> Vec<Value> {
    let task: Value = host.value("task/T", "task").unwrap();
    task["history"].as_array().unwrap().clone()
}

/// The actions of the hops that a run told.
fn hops(run: &Run) -> Vec<String> {
    run.on(CHANGED).iter().map(|hop| hop["action"].as_str().unwrap().to_owned()).collect()
}

fn retried(run: &Run) -> bool {
    matches!(run.result, Err(Failure::Retry { .. })) && run.published.is_empty()
}

#[test]
fn contract_5_5_a_task_goes_from_developer_to_done_with_its_events_in_order() {
    let mut host = opened();
    let commit = does(&mut host, "COMMIT_CODE", "dev");
    assert_eq!(hops(&commit), ["commit_code", "auto_route_to_architect"]);
    assert_eq!(commit.subjects(), [CHANGED, CHANGED, ASSIGNED, VALIDATION, MOVED]);
    let assigned = &commit.on(ASSIGNED)[0];
    for (key, value) in [
        ("role", "architect"),
        ("action", "REVIEW_DESIGN"),
        ("action_required", "approve_design"),
        ("current_state", "pending_arch_review"),
    ] {
        assert_eq!(assigned[key], value, "{key}");
    }
    assert!(assigned.get("feedback").is_none());
    let required = &commit.on(VALIDATION)[0];
    assert_eq!(
        (&required["validator_role"], &required["artifact_type"]),
        (&json!("architect"), &json!("design"))
    );
    let changed = &commit.on(CHANGED)[1];
    assert_eq!((&changed["actor_role"], &changed["role_in_charge"]), (&json!("system"), &json!("architect")));

    let claim = does(&mut host, "CLAIM_REVIEW", "architect");
    assert_eq!((claim.subjects(), state(&host, "T")), (vec![CHANGED], json!("arch_reviewing")));
    let design = does(&mut host, "approve_design", "ARCH");
    assert_eq!(hops(&design), ["approve_design", "auto_route_to_qa"]);
    assert_eq!(design.subjects(), [CHANGED, CHANGED, ASSIGNED, VALIDATION]);
    // Without a claim of its own: section 5.3.
    let tests = does(&mut host, "approve_tests", "tester");
    assert_eq!(hops(&tests), ["claim_testing", "approve_tests", "auto_route_to_po"]);
    assert_eq!(tests.on(VALIDATION)[0]["artifact_type"], "story");
    let story = does(&mut host, "APPROVE_STORY", "product_owner");
    assert_eq!(hops(&story), ["approve_story", "auto_complete"]);
    assert_eq!(story.subjects(), [CHANGED, CHANGED, COMPLETED, MOVED]);
    assert_eq!(story.on(COMPLETED)[0]["final_state"], "done");
    assert_eq!(state(&host, "T"), "done");
    assert_eq!(history(&host).len(), 11);
}

#[test]
fn contract_5_2_a_rejection_brings_the_feedback_to_the_developer_and_an_approval_clears_it() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    let rejected = does(&mut host, "reject_design", "architect");
    assert_eq!(hops(&rejected), ["claim_review", "reject_design"]);
    assert_eq!(rejected.subjects(), [CHANGED, CHANGED, ASSIGNED]);
    let rework = &rejected.on(ASSIGNED)[0];
    assert_eq!(
        (&rework["role"], &rework["action"], &rework["feedback"]),
        (&json!("developer"), &json!("REVISE_CODE"), &json!(WHY))
    );
    assert_eq!(rejected.on(CHANGED)[0]["feedback"], "", "the claim comes before it");
    assert_eq!(rejected.on(CHANGED)[1]["feedback"], WHY);

    let again = does(&mut host, "commit_code", "developer");
    assert_eq!(hops(&again), ["revise_code", "commit_code", "auto_route_to_architect"]);
    assert!(again.on(ASSIGNED)[0].get("feedback").is_none(), "the architect knows");
    assert!(!again.subjects().contains(&MOVED), "it has left the developer before");
    let approved = does(&mut host, "approve_design", "architect");
    assert_eq!(approved.on(CHANGED).last().unwrap()["feedback"], "");
    does(&mut host, "reject_tests", "qa");
    assert_eq!(state(&host, "T"), "qa_failed");
}

#[test]
fn contract_5_2_guards_ask_for_a_reason_and_for_a_commit() {
    let mut host = opened();
    let mut without = act("commit_code", "developer");
    without["artifacts"] = json!({"commit_sha": " "});
    let refused = does_as(&mut host, without);
    assert_eq!((refused.result.clone(), refused.published.len()), (Ok(()), 0));
    assert_eq!(refused.metric("workflow_dropped"), 1.0);
    let mut strict = opened().config("strict_guards", true);
    does(&mut strict, "commit_code", "developer");
    assert_eq!(state(&strict, "T"), "implementing");

    let mut named = act("commit_code", "developer");
    named["result"] = json!({"artifacts": {"commit_sha": "abc"}});
    does_as(&mut host, named);
    assert_eq!(state(&host, "T"), "pending_arch_review");
    let mut short = act("reject_design", "architect");
    short["feedback"] = json!("  too bad   ");
    assert!(does_as(&mut host, short).published.is_empty());
    assert_eq!(state(&host, "T"), "pending_arch_review");
}

#[test]
fn contract_5_2_discarded_cancelled_and_tried_again() {
    for (action, role) in [("DISCARD_TASK", "po"), ("cancel", "po"), ("CANCEL", "system")] {
        let mut host = opened();
        let run = does(&mut host, action, role);
        assert_eq!(run.subjects(), [CHANGED, COMPLETED, MOVED], "{action}");
        assert_eq!(run.on(COMPLETED)[0]["final_state"], "cancelled");
    }
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    does(&mut host, "reject_design", "architect");
    let retry = does(&mut host, "retry", "system");
    assert_eq!(hops(&retry), ["retry", "assign_to_developer"]);
    assert_eq!(retry.subjects(), [CHANGED, CHANGED, ASSIGNED]);
    let last = &retry.on(CHANGED)[1];
    assert_eq!((&last["retry_count"], &last["feedback"]), (&json!(1), &json!("")));
    assert_eq!(retry.on(ASSIGNED)[0]["action"], "IMPLEMENT_FEATURE");
    assert_eq!(state(&host, "T"), "implementing");
}

#[test]
fn contract_5_2_a_claim_of_what_one_has_is_noted_and_not_told() {
    let mut host = opened();
    let claim = does(&mut host, "claim_task", "developer");
    assert_eq!((claim.result.clone(), claim.published.len()), (Ok(()), 0));
    let task: Value = host.value("task/T", "task").unwrap();
    assert_eq!(task["claimed_by"], "a-1");
}

#[test]
fn contract_5_4_outcomes_in_their_order() {
    // Unknown, and retried: it may be on its way.
    assert!(retried(&run(&mut host(), WORK, act("dance", "nobody"))));
    let mut host = opened();
    for (action, role) in [
        (json!("dance"), json!("developer")),
        (json!("commit_code"), json!("wizard")),
        (json!(null), json!("qa")),
    ] {
        let message = json!({"task_id": "T", "action": action, "actor_role": role});
        let run = run(&mut host, WORK, message);
        assert!(matches!(run.result, Err(Failure::Reject(_))), "{:?}", run.result);
    }
    let violation = does(&mut host, "approve_design", "developer");
    assert_eq!((violation.result.clone(), violation.published.len()), (Ok(()), 0));
    assert_eq!(violation.metric("workflow_rbac_violations"), 1.0);
    assert!(retried(&does(&mut host, "approve_design", "architect")), "out of order, perhaps");
    let mut late = act("approve_design", "architect");
    late["nonce"] = json!("last");
    let last = host.attempt(3, true).run(crate::handle, cofferdam_sdk::testing::event(WORK, late));
    assert_eq!((last.result.clone(), last.metric("workflow_dropped")), (Ok(()), 1.0));

    let mut over = opened();
    does(&mut over, "cancel", "po");
    let refused = does(&mut over, "commit_code", "developer");
    assert_eq!((refused.result.clone(), refused.published.len()), (Ok(()), 0));
}

#[test]
fn contract_5_4_repeats_and_what_is_older_than_the_task_have_no_effect() {
    let mut host = opened();
    let at = |time: &str, action: &str, role: &str| {
        let mut message = act(action, role);
        message["timestamp"] = json!(time);
        message
    };
    let commit = at("2026-01-01T00:01:00Z", "commit_code", "developer");
    assert_eq!(run(&mut host, WORK, &commit).result, Ok(()));
    assert!(run(&mut host, WORK, &commit).acked_without_effect());
    let stale = run(&mut host, WORK, at("2026-01-01T00:00:54Z", "approve_design", "architect"));
    assert_eq!((stale.result.clone(), stale.published.len()), (Ok(()), 0));
    assert_eq!(state(&host, "T"), "pending_arch_review");
    run(&mut host, WORK, at("2026-01-01T00:00:56Z", "approve_design", "architect"));
    assert_eq!(state(&host, "T"), "pending_qa", "five seconds are no matter");
}

/// What a story's tasks do, with what the plugin tells itself.
fn settle_work(host: &mut Host, task: &str, action: &str, role: &str) -> Vec<String> {
    let message =
        json!({"task_id": task, "story_id": "S", "action": action, "actor_role": role, "feedback": WHY});
    settle(host, WORK, message).into_iter().map(|message| message.subject).collect()
}

#[test]
fn contract_5_1_the_next_task_is_assigned_when_one_leaves_its_developer_for_the_first_time() {
    let mut host = host();
    let ready = json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "tasks": ["A", "B", "C"]});
    settle(&mut host, TRANSITIONED, ready);
    assert_eq!((state(&host, "A"), state(&host, "B")), (json!("implementing"), json!("todo")));
    assert!(
        settle_work(&mut host, "A", "commit_code", "developer").iter().any(|subject| subject == ASSIGNED)
    );
    assert_eq!((state(&host, "B"), state(&host, "C")), (json!("implementing"), json!("todo")));
    settle_work(&mut host, "A", "reject_design", "architect");
    settle_work(&mut host, "A", "commit_code", "developer");
    assert_eq!(state(&host, "C"), "todo", "only the first time");
    settle_work(&mut host, "B", "cancel", "po");
    assert_eq!(state(&host, "C"), "implementing", "or when it ends before");
}

fn finish(host: &mut Host, task: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (action, role) in [
        ("commit_code", "developer"),
        ("approve_design", "architect"),
        ("approve_tests", "qa"),
        ("approve_story", "po"),
    ] {
        all.extend(settle_work(host, task, action, role));
    }
    all
}

fn completions(subjects: &[String]) -> usize {
    subjects.iter().filter(|subject| *subject == STORY_COMPLETED).count()
}

#[test]
fn contract_5_5_a_story_is_complete_once_all_are_over_and_one_is_done() {
    let mut host = host();
    for task in ["A", "B"] {
        settle(&mut host, CREATED, json!({"task_id": task, "story_id": "S"}));
    }
    assert_eq!(completions(&settle_work(&mut host, "B", "cancel", "po")), 0);
    assert_eq!(completions(&finish(&mut host, "A")), 1);
    // One that comes later makes another set.
    settle(&mut host, CREATED, json!({"task_id": "C", "story_id": "S"}));
    assert_eq!(completions(&finish(&mut host, "C")), 1);

    let mut cancelled = self::host();
    settle(&mut cancelled, CREATED, json!({"task_id": "A", "story_id": "S"}));
    assert_eq!(completions(&settle_work(&mut cancelled, "A", "cancel", "po")), 0, "nothing was done");
}

#[test]
fn contract_5_5_a_story_waits_for_the_tasks_that_its_plan_has() {
    let mut host = host();
    let derived = json!({"plan_id": "P", "story_id": "S", "task_count": 2, "status": "success"});
    settle(&mut host, DERIVED, derived);
    settle(&mut host, CREATED, json!({"task_id": "A", "story_id": "S"}));
    assert_eq!(completions(&finish(&mut host, "A")), 0);
    settle(&mut host, CREATED, json!({"task_id": "B", "story_id": "S"}));
    assert_eq!(completions(&finish(&mut host, "B")), 1);
}
