//! What a council decided.

use cofferdam_sdk::log::Level;
use serde_json::json;

use super::support::*;

#[test]
fn contract_2_3_the_decisions_of_a_deliberation_go_to_context_and_the_fleet_is_told() {
    let run = run(&mut host(), DECIDED, decided());
    let request = one(&run);
    assert_eq!(
        (request.story_id.as_str(), request.task_id.as_str(), request.role.as_str()),
        ("S", "T", "DEV")
    );
    let told: Vec<_> = request
        .changes
        .iter()
        .map(|change| (change.operation.as_str(), change.entity_type.as_str(), change.entity_id.as_str()))
        .collect();
    assert_eq!(told, [("CREATE", "DECISION", "DEC-T"), ("CREATE", "DECISION", "DEC-U")]);
    assert_eq!(
        payload(&request.changes[0]),
        json!({
            "id": "DEC-T", "type": "TECHNICAL", "rationale": "One table.", "affected_subtask": "T", "task_id": "T",
            "status": "proposed", "winner": "agent-dev-002", "deliberation_id": "dlb-1",
            "deliberation_status": "completed",
        })
    );
    assert_eq!(request.changes[0].reason, "the deliberation over T is completed");

    let updated = updated(&run);
    assert_eq!((&updated["story_id"], &updated["task_id"]), (&json!("S"), &json!("T")));
    assert_eq!(updated["changed"], json!(["DEC-T", "DEC-U"]));
    assert_eq!(updated["snapshot"], json!({"version": 1, "hash": "hash-1"}));
    assert!(updated["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(run.metric("context_updates"), 1.0);
}

#[test]
fn contract_2_1_the_event_carries_on_what_caused_it() {
    let enveloped = json!({
        "event_type": DECIDED, "idempotency_key": "k", "correlation_id": "c", "producer": "council",
        "timestamp": "2026-01-01T00:00:00Z", "payload": decided(),
    });
    let run = run(&mut host(), DECIDED, enveloped);
    let told = &run.on(UPDATED)[0];
    assert_eq!((&told["correlation_id"], &told["causation_id"]), (&json!("c"), &json!("k")));
    assert_eq!((&told["producer"], &told["story_id"]), (&json!("context-updater"), &json!("S")));
}

#[test]
fn contract_2_3_a_bare_message_of_the_python_orchestrator_is_understood() {
    // As it is sent: no envelope, seconds as a float, a decision without an id or a type.
    let bare = json!({
        "story_id": "US-1", "task_id": "TASK-001", "timestamp": 1_762_425_000.123_456,
        "decisions": [{"rationale": "Use a queue.", "alternatives": ["none"]}, {"id": 7, "type": "RISK"}],
    });
    let run = run(&mut host(), DECIDED, bare);
    let request = one(&run);
    assert_eq!((request.story_id.as_str(), request.role.as_str()), ("US-1", ""));
    assert_eq!(
        payload(&request.changes[0]),
        json!({
            "id": "DEC-TASK-001-0", "type": "TECHNICAL", "rationale": "Use a queue.", "task_id": "TASK-001",
            "status": "proposed", "deliberation_status": "completed",
        })
    );
    assert_eq!(payload(&request.changes[1])["type"], "RISK");
    assert_eq!(updated(&run)["changed"], json!(["DEC-TASK-001-0", "7"]));
    assert!(run.logged(Level::Warn).is_empty(), "{:?}", run.logs);
}

#[test]
fn contract_2_3_decisions_of_no_task_are_told_for_their_story() {
    for (id, expected) in [(json!(null), "DEC-S-0"), (json!("dlb"), "DEC-dlb-0")] {
        let bare =
            json!({"story_id": "S", "deliberation_id": id, "decisions": [{"rationale": "Use a queue."}]});
        let run = run(&mut host(), DECIDED, bare);
        let request = one(&run);
        assert_eq!((request.task_id.as_str(), request.changes[0].entity_id.as_str()), ("", expected));
        assert_eq!((&updated(&run)["task_id"], &updated(&run)["changed"]), (&json!(""), &json!([expected])));
    }
}

#[test]
fn contract_2_3_the_story_may_be_named_in_the_constraints() {
    for constraints in [json!({"story_id": "S"}), json!({"metadata": {"story_id": "S"}})] {
        let mut data = decided();
        data["story_id"] = json!(null);
        data["constraints"] = constraints;
        let run = run(&mut host(), DECIDED, data);
        assert_eq!((one(&run).story_id.as_str(), &updated(&run)["story_id"]), ("S", &json!("S")));
    }
}

#[test]
fn a_deliberation_that_decided_nothing_tells_nobody() {
    for (key, value) in [("decisions", json!([])), ("decisions", json!(null)), ("story_id", json!(null))] {
        let mut data = decided();
        data["decisions"] = json!([]);
        data[key] = value;
        let run = run(&mut host(), DECIDED, data);
        assert!(run.acked_without_effect() && run.calls.is_empty());
        assert_eq!(run.logged(Level::Debug), ["it decided nothing"]);
    }
}

#[test]
fn a_decision_that_is_told_twice_in_one_message_has_changed_once() {
    let mut data = decided();
    data["decisions"][1]["id"] = json!("DEC-T");
    let run = run(&mut host(), DECIDED, data);
    assert_eq!((one(&run).changes.len(), &updated(&run)["changed"]), (2, &json!(["DEC-T"])));
}

#[test]
fn what_context_warns_of_is_in_the_log() {
    let run = run(&mut host_warning(&["nobody has told of this story"]), DECIDED, decided());
    assert_eq!(run.logged(Level::Warn), ["Context took it with a warning: nobody has told of this story"]);
    assert_eq!(run.on(UPDATED).len(), 1);
}

#[test]
fn the_operator_may_leave_the_event_to_context() {
    let mut host = host().config("publish_updates", false);
    let run = run(&mut host, DECIDED, decided());
    assert_eq!((run.result.clone(), run.published.len(), asked(&run).len()), (Ok(()), 0, 1));
    assert!(run.wrote, "it is remembered all the same");
}
