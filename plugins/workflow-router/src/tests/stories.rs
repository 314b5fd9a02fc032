//! Stories that are through: the last rule of section 5.5 of the fleet's contract.

use serde_json::{Value, json};

use super::support::*;

fn completions(subjects: &[String]) -> usize {
    subjects.iter().filter(|subject| *subject == STORY_COMPLETED).count()
}

fn create(host: &mut cofferdam_sdk::testing::Host, task: &str) {
    settle(host, CREATED, json!({"task_id": task, "story_id": "S"}));
}

fn derived(count: u32) -> Value {
    json!({"plan_id": "P", "story_id": "S", "task_count": count, "status": "success"})
}

fn ready(tasks: Value) -> Value {
    json!({"story_id": "S", "to_state": "READY_FOR_EXECUTION", "tasks": tasks})
}

#[test]
fn contract_5_5_a_story_is_complete_once_all_known_tasks_are_over() {
    let mut host = host();
    ["A", "B", "C"].iter().for_each(|task| create(&mut host, task));
    assert_eq!(completions(&finish(&mut host, "A")), 0);
    assert_eq!(completions(&finish(&mut host, "C")), 0);
    let message = json!({"task_id": "B", "action": "cancel", "actor_role": "po"});
    let completed = settle(&mut host, WORK, message);
    let told: Vec<Value> =
        completed.iter().filter(|message| message.subject == STORY_COMPLETED).map(|m| m.json()).collect();
    assert_eq!(told.len(), 1);
    for (key, value) in [
        ("story_id", json!("S")),
        ("all_tasks_status", json!("done")),
        ("task_count", json!(3)),
        ("cancelled_count", json!(1)),
    ] {
        assert_eq!(told[0][key], value, "{key}");
    }
    assert_eq!(told[0].get("task_id"), None);
}

#[test]
fn contract_5_5_cancelled_tasks_do_not_block_a_story() {
    let mut host = host();
    create(&mut host, "A");
    create(&mut host, "B");
    assert_eq!(completions(&settle_work(&mut host, "B", "cancel", "po")), 0);
    assert_eq!(completions(&finish(&mut host, "A")), 1);
}

#[test]
fn contract_5_5_a_story_of_which_nothing_was_done_is_not_complete() {
    let mut host = host();
    create(&mut host, "A");
    assert_eq!(completions(&settle_work(&mut host, "A", "cancel", "po")), 0);
    create(&mut host, "B");
    assert_eq!(completions(&finish(&mut host, "B")), 1);
}

#[test]
fn contract_5_5_a_story_is_complete_once_for_each_set_of_tasks() {
    let mut host = host();
    create(&mut host, "A");
    assert_eq!(completions(&finish(&mut host, "A")), 1);
    for repeated in [ready(json!(["A"])), ready(json!(null)), derived(1)] {
        let subject = if repeated.get("plan_id").is_some() { DERIVED } else { TRANSITIONED };
        let again = settle(&mut host, subject, repeated);
        assert!(again.iter().all(|message| message.subject != STORY_COMPLETED));
    }
    create(&mut host, "B");
    assert_eq!(completions(&finish(&mut host, "B")), 1, "another set");
}

#[test]
fn contract_5_5_a_story_waits_for_the_tasks_that_its_plan_has() {
    let mut host = host();
    settle(&mut host, DERIVED, derived(2));
    create(&mut host, "A");
    assert_eq!(completions(&finish(&mut host, "A")), 0);
    create(&mut host, "B");
    assert_eq!(completions(&finish(&mut host, "B")), 1);
}

#[test]
fn contract_5_5_a_plan_that_is_told_late_completes_its_story() {
    let mut host = host();
    settle(&mut host, DERIVED, derived(2));
    create(&mut host, "A");
    finish(&mut host, "A");
    let completed = settle(&mut host, DERIVED, derived(1));
    assert_eq!(completed.iter().filter(|message| message.subject == STORY_COMPLETED).count(), 1);
}

#[test]
fn contract_5_5_a_story_waits_for_the_tasks_of_its_list_and_for_no_others() {
    let mut host = host();
    settle(&mut host, DERIVED, derived(3));
    // B can't be opened yet, for its event is still on its way.
    run(&mut host, TRANSITIONED, ready(json!(["A", "B"])));
    create(&mut host, "A");
    assert_eq!(completions(&finish(&mut host, "A")), 0);
    create(&mut host, "B");
    assert_eq!(completions(&finish(&mut host, "B")), 1);
}

/// A transition without a list says nothing of how many there will be.
#[test]
fn contract_5_5_without_a_list_the_plans_count_holds() {
    let mut host = host();
    settle(&mut host, DERIVED, derived(2));
    create(&mut host, "A");
    settle(&mut host, TRANSITIONED, ready(json!(null)));
    assert_eq!(completions(&finish(&mut host, "A")), 0);
    create(&mut host, "B");
    assert_eq!(completions(&finish(&mut host, "B")), 1);
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
