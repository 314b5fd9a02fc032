//! Stories that become ready for execution.

use cofferdam_sdk::{Failure, rpc::Code};
use serde_json::{Value, json};

use super::support::*;

fn ready(tasks: Value) -> Value {
    json!({"story_id": "S-1", "from_state": "PLANNED", "to_state": "READY_FOR_EXECUTION", "tasks": tasks})
}

#[test]
fn the_first_task_is_assigned_and_the_others_wait() {
    let mut host = host();
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "", "B", "A", "C"])));
    assert_eq!(assigned(&published), ["A"]);
    for (task, expect) in [("A", "implementing"), ("B", "todo"), ("C", "todo")] {
        assert_eq!(state(&host, task), expect, "{task}");
    }
    let story: Value = host.value("story/S-1", "story").unwrap();
    assert_eq!(story["planned"], json!(["A", "B", "C"]));
    assert_eq!(story["tasks"].as_array().unwrap().len(), 3);
}

#[test]
fn all_are_assigned_where_the_operator_says_so() {
    let mut host = host().config("assign_policy", "all");
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    assert_eq!(assigned(&published), ["A", "B"]);
}

#[test]
fn a_task_that_exists_is_left_alone() {
    let mut host = host();
    settle(&mut host, CREATED, json!({"task_id": "A", "story_id": "S-1"}));
    let published = settle(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    assert_eq!(assigned(&published), [] as [&str; 0]);
    assert_eq!(state(&host, "B"), "todo");
    assert!(published.iter().all(|message| message.json()["task_id"] == "B"));
}

#[test]
fn every_spelling_of_the_target_is_understood_and_other_targets_are_ignored() {
    for data in [
        json!({"story_id": "S-1", "to_phase": "READY_FOR_EXECUTION", "tasks": ["A"]}),
        json!({"story_id": "S-1", "to": "ready_for_execution", "tasks": ["A"]}),
        json!({"story_id": "S-1", "to_state": "READY_FOR_EXECUTION", "to_phase": "BUILD", "tasks": ["A"]}),
    ] {
        assert_eq!(assigned(&settle(&mut host(), TRANSITIONED, &data)), ["A"], "{data}");
    }
    for target in ["PLANNED", "IN_PROGRESS", "BUILD"] {
        let data = json!({"story_id": "S-1", "to_state": target, "tasks": ["A"]});
        assert!(run(&mut host(), TRANSITIONED, data).acked_without_effect(), "{target}");
    }
}

#[test]
fn a_repeated_transition_has_no_effect() {
    let mut host = host();
    assert_eq!(run(&mut host, TRANSITIONED, ready(json!(["A"]))).subjects(), [OPEN]);
    let again = run(&mut host, TRANSITIONED, ready(json!(["A"])));
    assert!(again.acked_without_effect());
    assert_eq!(again.metric("workflow_dropped"), 1.0);
}

#[test]
fn without_a_list_the_known_tasks_are_taken_else_those_that_planning_stores() {
    let mut knowing = host();
    settle(&mut knowing, CREATED, json!({"task_id": "A", "story_id": "S-1"}));
    let known = run(&mut knowing, TRANSITIONED, ready(json!(null)));
    assert_eq!(known.result, Ok(()));
    assert!(known.published.is_empty() && known.calls.is_empty(), "all are open");

    let mut asking = host_storing(&["X", "", "Y"]);
    let published = settle(&mut asking, TRANSITIONED, ready(json!(null)));
    assert_eq!(assigned(&published), ["X"]);
    assert_eq!(state(&asking, "Y"), "todo");
}

#[test]
fn an_empty_list_opens_nothing() {
    let run = run(&mut host(), TRANSITIONED, ready(json!([])));
    assert_eq!(run.result, Ok(()));
    assert!(run.published.is_empty() && run.calls.is_empty());
}

#[test]
fn planning_out_of_reach_is_a_retry_and_an_unknown_story_is_not() {
    let mut down = host().fails("planning", LIST_TASKS, Code::Unavailable, "down");
    let failed = run(&mut down, TRANSITIONED, ready(json!(null)));
    assert!(matches!(failed.result, Err(Failure::Retry { .. })));
    let mut unknown = host().fails("planning", LIST_TASKS, Code::NotFound, "no story");
    let run = run(&mut unknown, TRANSITIONED, ready(json!(null)));
    assert_eq!((run.result, run.published.len()), (Ok(()), 0));
}

#[test]
fn the_number_of_derived_tasks_is_kept_for_each_plan() {
    let mut host = host();
    for (plan, count) in [("P-1", 3), ("P-2", 2), ("P-1", 4)] {
        let data = json!({"plan_id": plan, "story_id": "S-1", "task_count": count, "status": "success"});
        assert_eq!(run(&mut host, DERIVED, data).result, Ok(()));
    }
    let story: Value = host.value("story/S-1", "story").unwrap();
    assert_eq!(story["expected"], json!({"P-1": 4, "P-2": 2}));
}
