//! What agents' actions do to a task: sections 5.2 and 5.3 of the fleet's contract. Which action leads where is held to the
//! table in `machine`.

use serde_json::{Value, json};

use super::support::*;

#[test]
fn contract_5_2_what_is_completed_goes_on_to_whoever_is_next_by_itself() {
    let mut host = opened();
    for ((action, role), (automatic, rests)) in STRAIGHT.into_iter().zip([
        ("auto_route_to_architect", "pending_arch_review"),
        ("auto_route_to_qa", "pending_qa"),
        ("auto_route_to_po", "pending_po_approval"),
        ("auto_complete", "done"),
    ]) {
        let run = does(&mut host, action, role);
        let last = run.on(CHANGED).pop().unwrap();
        assert_eq!((&last["action"], &last["actor_role"]), (&json!(automatic), &json!("system")));
        assert_eq!(state(&host, "T"), rests);
    }
}

#[test]
fn contract_5_2_a_claim_of_what_one_has_is_noted_and_not_told() {
    let mut host = opened();
    let claim = does(&mut host, "claim_task", "developer");
    assert_eq!((claim.result.clone(), told(&claim).len()), (Ok(()), 0));
    let task = stored(&host, "T");
    assert_eq!((&task["claimed_by"], &task["state"]), (&json!("a-1"), &json!("implementing")));
    assert_eq!(history(&host).len(), 1);
}

#[test]
fn contract_5_2_a_waiting_task_is_taken_by_a_claim_of_its_developer() {
    let mut host = host();
    run(&mut host, OPEN, json!({"task_id": "T", "story_id": "S", "assign": false}));
    let claim = does(&mut host, "CLAIM_TASK", "developer");
    assert_eq!((hops(&claim), told(&claim)), (vec!["claim_task".to_owned()], vec![CHANGED]));
    assert_eq!(stored(&host, "T")["claimed_by"], "a-1");
}

#[test]
fn contract_5_2_a_rejection_keeps_its_feedback_until_the_next_approval() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    let rejected = does(&mut host, "reject_design", "architect");
    assert_eq!(rejected.on(CHANGED)[0]["feedback"], "", "the claim comes before it");
    assert_eq!(rejected.on(CHANGED)[1]["feedback"], WHY);
    let again = does(&mut host, "commit_code", "developer");
    assert_eq!(again.on(CHANGED).last().unwrap()["feedback"], WHY, "until somebody has looked");
    let approved = does(&mut host, "approve_design", "architect");
    assert_eq!(approved.on(CHANGED)[0]["feedback"], WHY, "a claim is no approval");
    assert_eq!(approved.on(CHANGED)[1]["feedback"], "");
    assert_eq!(stored(&host, "T")["feedback"], Value::Null);
}

#[test]
fn contract_5_2_a_rejection_needs_feedback_of_ten_characters() {
    for (before, action, role) in
        [(1, "reject_design", "architect"), (2, "reject_tests", "qa"), (3, "reject_story", "po")]
    {
        let mut host = opened();
        for (action, role) in &STRAIGHT[..before] {
            does(&mut host, action, role);
        }
        for (feedback, enough) in [
            (json!(null), false),
            (json!(" too short "), false),
            (json!("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"), false),
            (json!(" ten of it "), false),
            (json!(" 10 letters "), true),
        ] {
            let mut message = act(action, role);
            message["feedback"] = feedback;
            let run = does_as(&mut host, message.clone());
            assert_eq!(!dropped(&run), enough, "{action} {message}");
        }
    }
}

#[test]
fn contract_5_2_feedback_may_be_in_the_result() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    let mut message = act("reject_design", "architect");
    message.as_object_mut().unwrap().remove("feedback");
    message["result"] = json!({"feedback": WHY});
    assert_eq!(does_as(&mut host, message).on(ASSIGNED)[0]["feedback"], WHY);
}

#[test]
fn contract_5_2_a_commit_names_its_sha_where_it_names_artifacts() {
    for (artifacts, passes) in [
        (json!({"artifacts": {"commit_sha": " "}}), false),
        (json!({"artifacts": {}}), false),
        (json!({"result": {"artifacts": {"branch": "main"}}}), false),
        (json!({"artifacts": {"commit_sha": "abc"}}), true),
        (json!({"result": {"artifacts": {"commit_sha": "abc"}}}), true),
        (json!({"artifacts": null}), true),
        (json!({}), true),
    ] {
        for action in ["commit_code", "REQUEST_REVIEW"] {
            let mut host = opened();
            let mut message = act(action, "developer");
            message.as_object_mut().unwrap().extend(artifacts.as_object().unwrap().clone());
            let run = does_as(&mut host, message);
            assert_eq!(!dropped(&run), passes, "{artifacts}");
        }
    }
}

#[test]
fn contract_5_2_strict_guards_want_artifacts() {
    let mut strict = opened().config("strict_guards", true);
    assert!(dropped(&does(&mut strict, "commit_code", "developer")));
    let mut named = act("commit_code", "developer");
    named["artifacts"] = json!({"commit_sha": "abc"});
    does_as(&mut strict, named);
    assert_eq!(state(&strict, "T"), "pending_arch_review");
}

#[test]
fn contract_5_2_a_task_is_discarded_or_cancelled_wherever_it_is() {
    for (action, role) in [("DISCARD_TASK", "po"), ("cancel", "po"), ("CANCEL", "system")] {
        for before in 0..4 {
            let mut host = opened();
            for (action, role) in &STRAIGHT[..before] {
                does(&mut host, action, role);
            }
            let run = does(&mut host, action, role);
            assert_eq!(run.on(COMPLETED)[0]["final_state"], "cancelled", "{action} after {before}");
        }
    }
}

#[test]
fn contract_5_2_another_try_begins_again_and_keeps_the_history() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    does(&mut host, "reject_design", "architect");
    let before = history(&host).len();
    let retry = does(&mut host, "retry", "system");
    assert_eq!(hops(&retry), ["retry", "assign_to_developer"]);
    let [first, last] = &retry.on(CHANGED)[..] else { panic!("two hops") };
    assert_eq!((&first["from_state"], &first["to_state"]), (&json!("arch_rejected"), &json!("todo")));
    assert_eq!((&last["retry_count"], &last["feedback"]), (&json!(1), &json!("")));
    assert_eq!(retry.on(ASSIGNED)[0]["action"], "IMPLEMENT_FEATURE");
    assert_eq!((state(&host, "T"), history(&host).len()), (json!("implementing"), before + 2));
    does(&mut host, "retry", "system");
    assert_eq!(stored(&host, "T")["retry_count"], 2);
}

#[test]
fn contract_5_3_a_claim_is_done_on_the_way_and_recorded() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    let rejected = does(&mut host, "reject_design", "architect");
    assert_eq!(hops(&rejected), ["claim_review", "reject_design"]);
    let states = |run: &cofferdam_sdk::testing::Run| -> Vec<Value> {
        run.on(CHANGED).iter().map(|hop| hop["to_state"].clone()).collect()
    };
    assert_eq!(states(&rejected), ["arch_reviewing", "arch_rejected"]);
    let both: Vec<Value> = history(&host)[3..].iter().map(|hop| hop["actor"].clone()).collect();
    assert_eq!(both, ["architect", "architect"]);

    let again = does(&mut host, "commit_code", "developer");
    assert_eq!(hops(&again), ["revise_code", "commit_code", "auto_route_to_architect"]);
    does(&mut host, "approve_design", "architect");
    let failed = does(&mut host, "reject_tests", "qa");
    assert_eq!(hops(&failed), ["claim_testing", "reject_tests"]);
    let again = does(&mut host, "request_review", "developer");
    assert_eq!(hops(&again), ["revise_code", "commit_code", "auto_route_to_architect"]);
}

#[test]
fn contract_5_3_nothing_is_implied_for_a_task_that_nobody_has() {
    let mut host = host();
    run(&mut host, OPEN, json!({"task_id": "T", "story_id": "S", "assign": false}));
    assert!(retried(&does(&mut host, "commit_code", "developer")));
}

#[test]
fn contract_5_3_a_claim_of_another_role_is_not_implied() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    assert!(retried(&does(&mut host, "approve_tests", "qa")));
    assert_eq!(state(&host, "T"), "pending_arch_review");
}

/// The claim comes after a revision, and is only noted.
#[test]
fn contract_5_3_a_developer_who_claims_rework_revises_it() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    does(&mut host, "reject_design", "architect");
    let claim = does(&mut host, "claim_task", "developer");
    assert_eq!((hops(&claim), told(&claim)), (vec!["revise_code".to_owned()], vec![CHANGED]));
    let task = stored(&host, "T");
    assert_eq!((&task["state"], &task["claimed_by"]), (&json!("implementing"), &json!("a-1")));
}

#[test]
fn a_claim_that_leads_nowhere_leaves_the_task_with_who_has_it() {
    let mut host = opened();
    claim(&mut host, "T", "a-1", "developer");
    let since = stored(&host, "T")["claimed_at"].clone();
    for agent in [json!("a-2"), json!("a-1"), Value::Null] {
        let mut message = act("claim_task", "developer");
        message["agent_id"] = agent;
        does_as(&mut host, message);
        let task = stored(&host, "T");
        assert_eq!((&task["claimed_by"], &task["claimed_at"]), (&json!("a-1"), &since));
    }
}
