//! What makes a story go on by itself: section 5.6 of the fleet's contract.

use cofferdam_sdk::log::Level;
use serde_json::json;

use super::support::*;

#[test]
fn contract_5_6_a_completed_derivation_takes_a_story_that_is_ready_for_planning_to_planned() {
    let mut host = host_at("READY_FOR_PLANNING");
    assert_eq!(way(&run(&mut host, DERIVED, derived())), "READY_FOR_PLANNING>PLANNED");
    assert_eq!(state(&host), "PLANNED");
}

#[test]
fn contract_5_6_a_completed_derivation_moves_no_story_that_is_elsewhere() {
    for at in STATES.into_iter().filter(|state| *state != "READY_FOR_PLANNING") {
        let mut host = host_at(at);
        let run = run(&mut host, DERIVED, derived());
        assert_eq!((run.result.clone(), way(&run), state(&host)), (Ok(()), String::new(), at.to_owned()));
    }
}

#[test]
fn contract_5_6_the_first_task_that_enters_implementing_begins_a_story_that_is_ready_for_execution() {
    let mut host = host_at("READY_FOR_EXECUTION");
    for other in ["todo", "dev_completed", "done"] {
        assert_eq!(way(&run(&mut host, CHANGED, task_in(other))), "", "{other}");
    }
    assert_eq!(way(&run(&mut host, CHANGED, task_in("implementing"))), "READY_FOR_EXECUTION>IN_PROGRESS");
    let second = json!({"task_id": "U", "story_id": "S", "to_state": "implementing"});
    assert_eq!(way(&run(&mut host, CHANGED, second)), "", "only the first");
    assert_eq!(state(&host), "IN_PROGRESS");
}

#[test]
fn contract_5_6_a_task_that_enters_implementing_moves_no_story_that_is_elsewhere() {
    for at in STATES.into_iter().filter(|state| *state != "READY_FOR_EXECUTION") {
        let mut host = host_at(at);
        let run = run(&mut host, CHANGED, task_in("implementing"));
        assert_eq!((run.result.clone(), way(&run), state(&host)), (Ok(()), String::new(), at.to_owned()));
        assert!(run.logged(Level::Warn).is_empty(), "that is nothing unusual");
    }
}

#[test]
fn contract_5_6_k13_completed_tasks_take_a_story_step_by_step_to_testing() {
    for (at, expected) in [
        (
            "READY_FOR_EXECUTION",
            "READY_FOR_EXECUTION>IN_PROGRESS IN_PROGRESS>CODE_REVIEW CODE_REVIEW>TESTING",
        ),
        ("IN_PROGRESS", "IN_PROGRESS>CODE_REVIEW CODE_REVIEW>TESTING"),
        ("CODE_REVIEW", "CODE_REVIEW>TESTING"),
    ] {
        let mut host = host_at(at);
        let run = run(&mut host, THROUGH, through());
        assert_eq!((way(&run).as_str(), state(&host).as_str()), (expected, "TESTING"));
        let keys: Vec<_> =
            run.on(TRANSITIONED).iter().map(|step| step["idempotency_key"].to_string()).collect();
        assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)), "{keys:?}");
    }
}

#[test]
fn contract_5_6_completed_tasks_of_a_story_that_is_elsewhere_are_a_warning_and_no_move() {
    let walking = ["READY_FOR_EXECUTION", "IN_PROGRESS", "CODE_REVIEW"];
    for at in STATES.into_iter().filter(|state| !walking.contains(state)) {
        let mut host = host_at(at);
        let run = run(&mut host, THROUGH, through());
        assert_eq!((run.result.clone(), way(&run), state(&host)), (Ok(()), String::new(), at.to_owned()));
        assert_eq!(run.logged(Level::Warn).len(), 1, "{at}");
    }
}

#[test]
fn contract_5_6_a_repeated_trigger_is_a_no_op() {
    for (at, subject, data, then) in [
        ("READY_FOR_PLANNING", DERIVED, derived(), "PLANNED"),
        ("READY_FOR_EXECUTION", CHANGED, task_in("implementing"), "IN_PROGRESS"),
        ("IN_PROGRESS", THROUGH, through(), "TESTING"),
    ] {
        let mut host = host_at(at);
        run(&mut host, subject, &data);
        assert_eq!(state(&host), then);
        // The same message once more, and another one that says the same.
        let again = run(&mut host, subject, &data);
        assert!(again.acked_without_effect());
        assert_eq!(again.metric("story_dropped"), 1.0);
        let mut other = data.clone();
        other["timestamp"] = json!("2026-02-01T00:00:00Z");
        assert_eq!(way(&run(&mut host, subject, other)), "");
        assert_eq!(state(&host), then);
    }
}

#[test]
fn contract_5_6_a_repeat_of_what_is_long_over_does_not_move_a_story_that_was_sent_back() {
    let mut host = host_at("IN_PROGRESS");
    run(&mut host, THROUGH, through());
    assert!(go(&mut host, "IN_PROGRESS").success, "testing found something");
    assert!(run(&mut host, THROUGH, through()).acked_without_effect());
    assert_eq!(state(&host), "IN_PROGRESS");
    // Once the tasks that came of it are through, too.
    let more = json!({"story_id": "S", "all_tasks_status": "done", "task_count": 3});
    assert_eq!(way(&run(&mut host, THROUGH, more)), "IN_PROGRESS>CODE_REVIEW CODE_REVIEW>TESTING");
}

#[test]
fn contract_5_6_nothing_by_itself_leaves_planned_or_testing() {
    for at in ["PLANNED", "TESTING"] {
        let mut host = host_at(at);
        for (subject, data) in
            [(DERIVED, derived()), (CHANGED, task_in("implementing")), (THROUGH, through())]
        {
            assert_eq!(way(&run(&mut host, subject, data)), "", "{subject} in {at}");
        }
        assert_eq!(state(&host), at);
    }
}

#[test]
fn contract_2_1_what_names_no_story_is_malformed() {
    for (subject, data) in [
        (CREATED, json!({"title": "Login"})),
        (TRANSITIONED, json!({"to_state": "PLANNED"})),
        (TRANSITIONED, json!({"story_id": "S"})),
        (TASK, json!({"task_id": "T"})),
        (DERIVED, json!({"plan_id": "P"})),
        (CHANGED, json!({"task_id": "T", "to_state": "implementing"})),
        (CHANGED, json!({"task_id": "T", "story_id": "S"})),
        (THROUGH, json!({"task_count": 1})),
    ] {
        let run = run(&mut host(), subject, &data);
        assert!(matches!(run.result, Err(cofferdam_sdk::Failure::Reject(_))), "{subject} {data}");
        assert_eq!(run.metric("story_dropped"), 1.0);
    }
}

#[test]
fn a_completed_derivation_that_is_stale_still_tells_how_many_tasks_there_are() {
    let mut host = host_at("DRAFT");
    let mut late = cofferdam_sdk::testing::event(DERIVED, derived());
    late.timestamp -= 3_600 * 1_000_000_000;
    let told = take(&mut host, late);
    assert_eq!((told.result.clone(), told.published.len(), told.metric("story_dropped")), (Ok(()), 0, 1.0));
    let story: serde_json::Value = host.value("story/S", "story").unwrap();
    assert_eq!((&story["expected"]["P"], &story["state"]), (&json!(2), &json!("DRAFT")));
}
