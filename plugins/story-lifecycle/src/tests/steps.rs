//! What a step tells: sections 2.1 and 2.3 of the fleet's contract, and its subject of story transitions.

use std::collections::BTreeSet;

use cofferdam_sdk::{rpc::Code, testing::Host};
use serde_json::{Value, json};

use super::support::*;

/// The one step that `TransitionStory` to this state tells.
fn step(host: &mut Host, target: &str) -> Value {
    let served = ask(host, "S", target);
    assert_eq!(served.subjects(), [TRANSITIONED]);
    served.on(TRANSITIONED).remove(0)
}

#[test]
fn contract_2_3_k15_a_step_has_state_keys_and_phase_keys_and_the_tasks() {
    let mut host = host_at("PLANNED").config("wire.envelope", "bare");
    run(&mut host, TASK, json!({"task_id": "T", "story_id": "S"}));
    let step = step(&mut host, "READY_FOR_EXECUTION");
    let keys: BTreeSet<&str> = step.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "from_phase",
        "from_state",
        "story_id",
        "tasks",
        "timestamp",
        "to_phase",
        "to_state",
        "transitioned_by",
    ];
    assert_eq!(keys, expected.into());
    for (key, value) in [
        ("story_id", json!("S")),
        ("from_state", json!("PLANNED")),
        ("to_state", json!("READY_FOR_EXECUTION")),
        ("from_phase", json!("DESIGN")),
        ("to_phase", json!("BUILD")),
        ("tasks", json!(["T"])),
        ("transitioned_by", json!("ann")),
    ] {
        assert_eq!(step[key], value, "{key}");
    }
    assert!(step["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn contract_2_1_a_step_is_enveloped_and_carries_its_cause_on() {
    let mut host = host_at("READY_FOR_PLANNING");
    let cause = json!({"event_type": DERIVED, "idempotency_key": "k", "correlation_id": "c",
        "producer": "dependency-analyzer", "payload": derived()});
    let message = run(&mut host, DERIVED, cause).on(TRANSITIONED).remove(0);
    for (key, value) in [
        ("event_type", TRANSITIONED),
        ("correlation_id", "c"),
        ("causation_id", "k"),
        ("producer", "story-lifecycle"),
        ("to_state", "PLANNED"),
    ] {
        assert_eq!(message[key], value, "{key}");
    }
    assert_eq!(message["payload"]["to_phase"], "DESIGN");
    assert_eq!(message["payload"]["transitioned_by"], "story-lifecycle");
}

#[test]
fn contract_2_1_the_same_step_made_twice_has_two_keys() {
    let mut host = host_at("TESTING");
    let mut key = |target| step(&mut host, target)["idempotency_key"].to_string();
    let keys = [key("IN_PROGRESS"), key("CODE_REVIEW"), key("IN_PROGRESS"), key("CODE_REVIEW")];
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn contract_5_6_the_step_into_execution_asks_planning_for_the_tasks_that_nobody_told_of() {
    let mut storing = host_storing(&["A", "", "B"]);
    run(&mut storing, TRANSITIONED, json!({"story_id": "S", "to_state": "PLANNED"}));
    assert_eq!(step(&mut storing, "READY_FOR_EXECUTION")["tasks"], json!(["A", "B"]));
    // They are known from then on.
    let progress = run(&mut storing, CHANGED, task_in("implementing"));
    assert_eq!((&progress.on(TRANSITIONED)[0]["tasks"], progress.calls.len()), (&json!(["A", "B"]), 0));

    // Two of three are known: Planning's order counts.
    let mut some = host_storing(&["A", "B", "C"]);
    run(&mut some, DERIVED, json!({"plan_id": "P", "story_id": "S", "task_count": 3}));
    for task in ["B", "late"] {
        run(&mut some, TASK, json!({"task_id": task, "story_id": "S"}));
    }
    assert_eq!(step(&mut some, "READY_FOR_EXECUTION")["tasks"], json!(["A", "B", "C", "late"]));
}

#[test]
fn contract_5_6_nobody_is_asked_for_tasks_that_are_known() {
    let mut host = host_storing(&["X"]);
    run(&mut host, DERIVED, derived());
    for task in ["A", "B", "A"] {
        run(&mut host, TASK, json!({"task_id": task, "story_id": "S"}));
    }
    let served = ask(&mut host, "S", "READY_FOR_EXECUTION");
    assert_eq!((&served.on(TRANSITIONED)[0]["tasks"], served.calls.len()), (&json!(["A", "B"]), 0));
}

#[test]
fn contract_5_1_tasks_that_nobody_knows_are_left_out_and_none_are_an_empty_list() {
    let mut down = host_at("PLANNED").fails("planning", LIST_TASKS, Code::Unavailable, "down");
    assert_eq!(step(&mut down, "READY_FOR_EXECUTION").get("tasks"), None);
    let mut none = host_storing(&[]);
    run(&mut none, TRANSITIONED, json!({"story_id": "S", "to_state": "PLANNED"}));
    assert_eq!(step(&mut none, "READY_FOR_EXECUTION")["tasks"], json!([]));
    // Other steps ask for nothing.
    let served = ask(&mut host_at("DRAFT"), "S", "PO_REVIEW");
    assert_eq!((served.on(TRANSITIONED)[0].get("tasks"), served.calls.len()), (None, 0));
}

#[test]
fn another_services_list_of_tasks_comes_first() {
    let mut host = host_at("PLANNED");
    run(&mut host, TASK, json!({"task_id": "A", "story_id": "S"}));
    run(
        &mut host,
        TRANSITIONED,
        json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "tasks": ["B", "A", "", "B"]}),
    );
    assert_eq!(step(&mut host, "IN_PROGRESS")["tasks"], json!(["B", "A"]));
}
