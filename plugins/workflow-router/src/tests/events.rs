//! What is told of an accepted action, and in which order: section 5.5 of the fleet's contract.

use serde_json::{Value, json};

use super::support::*;

#[test]
fn contract_5_5_each_hop_is_told_claims_and_automatic_ones_too() {
    let mut host = opened();
    does(&mut host, "commit_code", "developer");
    let tests = does(&mut host, "approve_design", "architect");
    let told: Vec<[Value; 4]> = tests
        .on(CHANGED)
        .iter()
        .map(|hop| ["from_state", "to_state", "action", "actor_role"].map(|key| hop[key].clone()))
        .collect();
    assert_eq!(
        told,
        [
            ["pending_arch_review", "arch_reviewing", "claim_review", "architect"],
            ["arch_reviewing", "arch_approved", "approve_design", "architect"],
            ["arch_approved", "pending_qa", "auto_route_to_qa", "system"],
        ]
        .map(|hop| hop.map(Value::from))
    );
    let last = &tests.on(CHANGED)[2];
    assert_eq!((&last["role_in_charge"], &last["required_action"]), (&json!("qa"), &json!("approve_tests")));
}

#[test]
fn contract_5_5_who_has_to_validate_is_assigned_and_then_asked_for_it() {
    let mut host = opened();
    for ((action, role), (next, label, required, artifact, rests)) in STRAIGHT.into_iter().zip([
        ("architect", "REVIEW_DESIGN", "approve_design", "design", "pending_arch_review"),
        ("qa", "RUN_TESTS", "approve_tests", "tests", "pending_qa"),
        ("po", "APPROVE_STORY", "approve_story", "story", "pending_po_approval"),
    ]) {
        let run = does(&mut host, action, role);
        let rest: Vec<&str> =
            told(&run).into_iter().filter(|subject| ![CHANGED, MOVED].contains(subject)).collect();
        assert_eq!(rest, [ASSIGNED, VALIDATION]);
        let assigned = &run.on(ASSIGNED)[0];
        for (key, value) in [
            ("role", next),
            ("assigned_to_role", next),
            ("action", label),
            ("required_action", label),
            ("action_required", required),
            ("current_state", rests),
        ] {
            assert_eq!(assigned[key], value, "{key}");
        }
        assert!(assigned.get("feedback").is_none());
        let required = &run.on(VALIDATION)[0];
        assert_eq!(
            (&required["validator_role"], &required["artifact_type"]),
            (&json!(next), &json!(artifact))
        );
    }
}

#[test]
fn contract_5_5_rework_is_assigned_to_the_developer_with_the_feedback() {
    for (before, action, role) in [(1, "reject_design", "architect"), (2, "reject_tests", "qa")] {
        let mut host = opened();
        for (action, role) in &STRAIGHT[..before] {
            does(&mut host, action, role);
        }
        let rejected = does(&mut host, action, role);
        assert_eq!(told(&rejected), [CHANGED, CHANGED, ASSIGNED]);
        let rework = &rejected.on(ASSIGNED)[0];
        for (key, value) in [
            ("role", "developer"),
            ("action", "REVISE_CODE"),
            ("action_required", "revise_code"),
            ("feedback", WHY),
        ] {
            assert_eq!(rework[key], value, "{key}");
        }
    }
}

#[test]
fn contract_5_5_the_end_of_a_task_is_told_once_after_its_hops() {
    let mut host = opened();
    for (action, role) in &STRAIGHT[..3] {
        does(&mut host, action, role);
    }
    let done = does(&mut host, "APPROVE_STORY", "product_owner");
    assert_eq!(told(&done), [CHANGED, CHANGED, COMPLETED, MOVED]);
    assert_eq!(done.on(COMPLETED)[0]["final_state"], "done");
    let mut host = opened();
    let cancelled = does(&mut host, "cancel", "po");
    assert_eq!(told(&cancelled), [CHANGED, COMPLETED, MOVED]);
    assert_eq!(cancelled.on(COMPLETED)[0]["final_state"], "cancelled");
}

#[test]
fn contract_5_5_a_whole_way_in_its_order() {
    let mut host = opened();
    let commit = does(&mut host, "COMMIT_CODE", "dev");
    assert_eq!(told(&commit), [CHANGED, CHANGED, ASSIGNED, VALIDATION, MOVED]);
    let claim = does(&mut host, "CLAIM_REVIEW", "architect");
    assert_eq!((told(&claim), state(&host, "T")), (vec![CHANGED], json!("arch_reviewing")));
    let design = does(&mut host, "approve_design", "ARCH");
    assert_eq!(told(&design), [CHANGED, CHANGED, ASSIGNED, VALIDATION]);
    // Without a claim of its own: section 5.3.
    let tests = does(&mut host, "approve_tests", "tester");
    assert_eq!(told(&tests), [CHANGED, CHANGED, CHANGED, ASSIGNED, VALIDATION]);
    let story = does(&mut host, "APPROVE_STORY", "product_owner");
    assert_eq!(told(&story), [CHANGED, CHANGED, COMPLETED, MOVED]);
    assert_eq!((state(&host, "T"), history(&host).len()), (json!("done"), 11));
}

#[test]
fn contract_2_1_two_moves_of_a_task_have_different_keys() {
    let mut host = opened();
    let mut keys = Vec::new();
    for (action, role) in [
        ("commit_code", "developer"),
        ("reject_design", "architect"),
        ("commit_code", "developer"),
        ("reject_design", "architect"),
        ("commit_code", "developer"),
    ] {
        let run = does(&mut host, action, role);
        keys.extend(run.published.iter().map(|message| message.json()["idempotency_key"].to_string()));
    }
    let told = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), told);
}

/// Of two messages with one key, one is lost.
#[test]
fn what_the_plugin_tells_itself_has_a_key_of_its_own_for_each_task() {
    let mut host = host();
    let ready = json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "tasks": ["A", "B"]});
    let mut all = settle(&mut host, TRANSITIONED, ready);
    for task in ["A", "B"] {
        let work =
            json!({"task_id": task, "story_id": "S", "action": "commit_code", "actor_role": "developer"});
        all.extend(settle(&mut host, WORK, work));
    }
    for subject in OWN {
        let of_subject = all.iter().filter(|message| message.subject == subject);
        let keys: Vec<String> =
            of_subject.map(|message| message.json()["idempotency_key"].to_string()).collect();
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert!(keys.len() >= 2 && different.len() == keys.len(), "{subject}: {keys:?}");
    }
}

#[test]
fn contract_2_3_every_event_names_its_task_and_its_story_and_when() {
    let mut host = host();
    let mut all = settle(&mut host, CREATED, json!({"task_id": "T", "story_id": "S"}));
    for (action, role) in STRAIGHT {
        all.extend(settle(&mut host, WORK, act(action, role)));
    }
    for subject in [CHANGED, ASSIGNED, VALIDATION, COMPLETED, STORY_COMPLETED] {
        let told = all.iter().filter(|message| message.subject == subject);
        let told: Vec<Value> = told.map(|message| message.json()["payload"].clone()).collect();
        assert!(!told.is_empty(), "{subject}");
        for payload in told {
            let task = if subject == STORY_COMPLETED { Value::Null } else { json!("T") };
            assert_eq!((&payload["task_id"], &payload["story_id"]), (&task, &json!("S")), "{subject}");
            assert!(payload["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{payload}");
        }
    }
}

#[test]
fn contract_2_3_a_change_says_none_by_an_empty_text() {
    let mut host = opened();
    let cancelled = does(&mut host, "cancel", "po").on(CHANGED).remove(0);
    for key in ["role_in_charge", "required_action"] {
        assert_eq!(cancelled[key], "", "{key} of {cancelled}");
    }
    assert_eq!(cancelled["retry_count"], 0);
}
