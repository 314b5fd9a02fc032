//! Who goes first.

use cofferdam_sdk::testing::event;
use serde_json::json;

use super::support::*;

/// Lets all tasks go one by one; who went, in order.
fn all(host: &mut cofferdam_sdk::testing::Host, first: &str) -> Vec<String> {
    let mut order = vec![first.to_owned()];
    while let Some(next) = settle(host, ANSWERED, answer(&order[order.len() - 1])).tasks(DISPATCHED).pop() {
        order.push(next);
    }
    order
}

#[test]
fn contract_6_queue_the_greatest_score_goes_first_and_equals_in_the_order_in_which_they_came() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("first"));
    for (task, priority) in [("low", 9), ("b", 3), ("a", 3), ("high", 1), ("c", 3)] {
        assert!(settle(&mut host, CREATED, prior(task, priority)).subjects().is_empty());
    }
    assert_eq!(listed(&mut host), ["first", "high", "b", "a", "c", "low"]);
    let scores: Vec<i32> = list(&mut host, "").iter().map(|task| task.score).collect();
    assert_eq!(scores, [6, 10, 8, 8, 8, 2]);
    assert_eq!(all(&mut host, "first"), ["first", "high", "b", "a", "c", "low"]);
    assert_eq!(listed(&mut host), Vec::<String>::new());
}

#[test]
fn contract_1_k17_the_score_is_11_less_plannings_priority_and_one_that_is_not_told_is_normal() {
    for (priority, score) in [
        (json!(1), 10),
        (json!("2"), 9),
        (json!(10), 1),
        (json!(0), 10),
        (json!(-3), 10),
        (json!(99), 1),
        (json!(null), 6),
        (json!("soon"), 6),
    ] {
        let mut host = one_by_one();
        let mut message = created("T");
        message["priority"] = priority.clone();
        settle(&mut host, CREATED, message);
        assert_eq!(list(&mut host, "")[0].score, score, "{priority}");
        assert_eq!(get(&mut host, "T").priority, 11 - score);
    }
}

#[test]
fn equals_go_in_the_order_of_their_messages_even_where_the_queue_hears_of_them_in_another() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("busy"));
    let runs: Vec<_> = ["one", "two", "three"].map(|task| run(&mut host, CREATED, created(task))).into();
    for run in runs.into_iter().rev() {
        follow(&mut host, run);
    }
    assert_eq!(all(&mut host, "busy"), ["busy", "one", "two", "three"]);
}

#[test]
fn messages_that_were_stored_at_one_time_are_in_the_order_of_their_stream() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("busy"));
    for (task, number) in [("ten", 10), ("nine", 9), ("two", 2)] {
        let mut event = event(CREATED, created(task));
        event.id = format!("PLANNING_EVENTS.{number}");
        event.timestamp = cofferdam_sdk::testing::EPOCH;
        take(&mut host, event);
    }
    assert_eq!(all(&mut host, "busy"), ["busy", "two", "nine", "ten"]);
}

#[test]
fn contract_6_queue_the_next_goes_when_one_is_completed_and_when_one_has_failed() {
    let mut host = one_by_one();
    for task in ["A", "B", "C"] {
        settle(&mut host, CREATED, created(task));
    }
    let told = settle(&mut host, ANSWERED, answer("A"));
    assert_eq!(told.subjects(), [COMPLETED, DISPATCHED]);
    assert_eq!(told.tasks(DISPATCHED), ["B"]);
    let told = settle(&mut host, AGENT_FAILED, failure("B"));
    assert_eq!(told.subjects(), [FAILED, DISPATCHED]);
    assert_eq!(told.tasks(DISPATCHED), ["C"]);
}

#[test]
fn no_more_are_in_progress_than_may_be() {
    let mut host = one_by_one().config("max_in_progress", 2);
    for task in ["A", "B", "C", "D"] {
        settle(&mut host, CREATED, created(task));
    }
    let going = |host: &mut _| list(host, "").iter().filter(|task| task.status == "IN_PROGRESS").count();
    assert_eq!(going(&mut host), 2);
    assert_eq!(settle(&mut host, ANSWERED, answer("B")).tasks(DISPATCHED), ["C"]);
    assert_eq!(going(&mut host), 2);
    let mut all = direct();
    for task in ["A", "B", "C", "D"] {
        assert_eq!(settle(&mut all, CREATED, created(task)).tasks(DISPATCHED), [task]);
    }
    assert_eq!(going(&mut all), 4);
}

#[test]
fn contract_7_queue_depth_tells_how_many_wait_and_how_many_are_in_progress() {
    let mut host = one_by_one();
    let depth = |run: &cofferdam_sdk::testing::Run| {
        ["QUEUED", "IN_PROGRESS"].map(|status| run.gauge("queue_depth", &[("status", status)]).unwrap())
    };
    for (number, task) in ["A", "B", "C"].into_iter().enumerate() {
        let created = run(&mut host, CREATED, created(task));
        let changed = run(&mut host, CHANGED, created.on(CHANGED)[0].clone());
        assert_eq!(depth(&changed), [number as f64, 1.0], "{task}");
        follow(&mut host, changed);
    }
    let answered = run(&mut host, ANSWERED, answer("A"));
    let changed = run(&mut host, CHANGED, answered.on(CHANGED)[0].clone());
    assert_eq!(depth(&changed), [1.0, 1.0]);
}
