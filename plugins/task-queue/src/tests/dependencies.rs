//! Who waits for whom.

use cofferdam_sdk::{Failure, log::Level};
use serde_json::json;

use super::support::*;

#[test]
fn contract_6_queue_a_task_leaves_only_when_all_it_depends_on_is_completed_and_the_next_ready_one_goes() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("A"));
    let mut first = depending("last", &["A", "B"]);
    first["priority"] = json!(1);
    settle(&mut host, CREATED, first);
    settle(&mut host, CREATED, prior("B", 10));
    // It keeps its place, which is the first.
    assert_eq!(listed(&mut host), ["A", "last", "B"]);
    assert_eq!(settle(&mut host, ANSWERED, answer("A")).tasks(DISPATCHED), ["B"]);
    assert_eq!(list(&mut host, "")[1].waits_for, ["B"]);
    assert_eq!(settle(&mut host, ANSWERED, answer("B")).tasks(DISPATCHED), ["last"]);
}

#[test]
fn a_dependency_may_be_created_after_its_dependent_and_be_of_another_story() {
    let mut host = direct();
    assert!(settle(&mut host, CREATED, depending("T", &["elsewhere"])).subjects().is_empty());
    let mut other = created("elsewhere");
    other["story_id"] = json!("other");
    assert_eq!(settle(&mut host, CREATED, other).tasks(DISPATCHED), ["elsewhere"]);
    let ids = |tasks: Vec<fleet_proto::queue::v1::QueuedTask>| -> Vec<String> {
        tasks.into_iter().map(|task| task.task_id).collect()
    };
    assert_eq!(ids(list(&mut host, "S")), ["T"]);
    assert_eq!(ids(list(&mut host, "other")), ["elsewhere"]);
    assert_eq!(settle(&mut host, ANSWERED, answer("elsewhere")).tasks(DISPATCHED), ["T"]);
}

#[test]
fn a_dependency_that_was_completed_long_before_is_looked_up() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, ANSWERED, answer("A"));
    assert_eq!(settle(&mut host, CREATED, depending("T", &["A", "A", " "])).tasks(DISPATCHED), ["T"]);
}

#[test]
fn what_the_queue_hears_late_or_twice_is_as_it_is_now() {
    let mut host = direct();
    let created_a = run(&mut host, CREATED, created("A"));
    let changed = created_a.on(CHANGED)[0].clone();
    follow(&mut host, created_a);
    let answered = run(&mut host, ANSWERED, answer("A"));
    // The task is completed, and the queue has not heard: its dependent is no worse off for that.
    assert_eq!(settle(&mut host, CREATED, depending("T", &["A"])).tasks(DISPATCHED), ["T"]);
    let done = answered.on(CHANGED)[0].clone();
    for message in [&changed, &done, &changed, &done] {
        assert!(settle(&mut host, CHANGED, message).subjects().is_empty());
    }
    assert_eq!(listed(&mut host), ["T"]);
}

#[test]
fn contract_6_queue_behind_a_failed_task_they_stay_queued_and_are_reported_once() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, depending("B", &["A"]));
    settle(&mut host, CREATED, depending("C", &["B"]));
    let failed = run(&mut host, AGENT_FAILED, failure("A"));
    let changed = run(&mut host, CHANGED, failed.on(CHANGED)[0].clone());
    assert_eq!(changed.logged(Level::Warn).len(), 2);
    assert_eq!(changed.metric("task_queue_blocked"), 2.0);
    let told = follow(&mut host, changed);
    assert_eq!(told.tasks(BLOCKED), ["B", "C"]);
    for blocked in told.on(BLOCKED) {
        assert_eq!((&blocked["behind"], &blocked["story_id"]), (&json!(["A"]), &json!("S")));
        assert_eq!(blocked["error"], "A failed: out of memory");
    }
    let blocked_by: Vec<Vec<String>> = list(&mut host, "").into_iter().map(|task| task.blocked_by).collect();
    assert_eq!(blocked_by, [["A"], ["B"]]);
    assert_eq!([status(&mut host, "B"), status(&mut host, "C")], ["QUEUED", "QUEUED"]);
    // Others go, and nobody is told again.
    let told = settle(&mut host, CREATED, created("D"));
    assert_eq!(told.subjects(), [DISPATCHED]);
    // Who comes later is told when it comes.
    assert_eq!(settle(&mut host, CREATED, depending("E", &["C"])).tasks(BLOCKED), ["E"]);
    // A second failure is another that they are behind.
    assert_eq!(
        settle(&mut host, CREATED, depending("F", &["A", "D"])).on(BLOCKED)[0]["behind"],
        json!(["A"])
    );
    let told = settle(&mut host, AGENT_FAILED, failure("D"));
    assert_eq!((told.tasks(BLOCKED), &told.on(BLOCKED)[0]["behind"]), (vec!["F".into()], &json!(["A", "D"])));
}

#[test]
fn contract_6_queue_they_go_once_what_failed_is_enqueued_again_and_completed() {
    let mut host = direct();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, depending("B", &["A"]));
    settle(&mut host, AGENT_FAILED, failure("A"));
    assert_eq!(settle(&mut host, CREATED, prior("A", 2)).subjects(), [DISPATCHED]);
    assert_eq!(list(&mut host, "")[1].blocked_by, Vec::<String>::new());
    let mut failure = failure("A");
    failure["n"] = json!(2);
    assert_eq!(settle(&mut host, AGENT_FAILED, failure).tasks(BLOCKED), ["B"], "it failed again");
    settle(&mut host, CREATED, prior("A", 3));
    assert_eq!(settle(&mut host, ANSWERED, answer("A")).tasks(DISPATCHED), ["B"]);
    assert_eq!(queue(&host)["failed"], json!({}));
}

#[test]
fn tasks_that_depend_on_each_other_are_reported_with_those_behind_them() {
    let mut host = direct();
    settle(&mut host, CREATED, depending("X", &["A"]));
    settle(&mut host, CREATED, depending("B", &["C"]));
    settle(&mut host, CREATED, depending("C", &["A"]));
    let told = settle(&mut host, CREATED, depending("A", &["B"]));
    assert_eq!(told.tasks(BLOCKED), ["A", "B", "C", "X"]);
    for blocked in told.on(BLOCKED) {
        assert_eq!(blocked["behind"], json!(["A", "B", "C"]));
        assert_eq!(blocked["error"], "tasks depend on each other: A -> B -> C -> A");
    }
    assert!(
        list(&mut host, "").iter().all(|task| task.status == "QUEUED" && task.blocked_by == task.waits_for)
    );
    assert_eq!(settle(&mut host, CREATED, created("D")).subjects(), [DISPATCHED]);
    assert_eq!(settle(&mut host, CREATED, depending("E", &["D"])).subjects(), Vec::<&str>::new());
}

#[test]
fn two_circles_are_two_reasons() {
    let mut host = direct();
    for (task, on) in [("A", ["B"]), ("B", ["A"]), ("C", ["D"])] {
        settle(&mut host, CREATED, depending(task, &on));
    }
    assert_eq!(settle(&mut host, CREATED, depending("D", &["C", "A"])).tasks(BLOCKED), ["C", "D"]);
    let told = settle(&mut host, CREATED, depending("E", &["A", "C"]));
    assert_eq!(told.on(BLOCKED)[0]["behind"], json!(["A", "B", "C", "D"]));
}

#[test]
fn a_dependency_on_itself_is_ignored() {
    let mut host = direct();
    let run = run(&mut host, CREATED, depending("T", &["T"]));
    assert_eq!(run.logged(Level::Warn).len(), 1);
    assert_eq!(follow(&mut host, run).tasks(DISPATCHED), ["T"]);
}

#[test]
fn without_the_grant_nobody_is_told_and_tasks_go_all_the_same() {
    let denied = cofferdam_sdk::publish::EmitError::Denied("no grant".into());
    let mut host = direct().refuses_publish(BLOCKED, denied);
    settle(&mut host, CREATED, depending("B", &["A"]));
    settle(&mut host, CREATED, created("A"));
    assert!(settle(&mut host, AGENT_FAILED, failure("A")).tasks(BLOCKED).is_empty());
    settle(&mut host, CREATED, prior("A", 2));
    assert_eq!(settle(&mut host, ANSWERED, answer("A")).tasks(DISPATCHED), ["B"]);
}

#[test]
fn what_can_not_be_kept_is_refused_with_the_remedy() {
    let many: Vec<String> = (0..61).map(|n| format!("D{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "x".repeat(257);
    for (message, words) in [
        (depending("T", &many), "61 dependencies, and 60 are the most; let some of them wait for others"),
        (depending("T", &[&long]), "has 257 bytes, and 256 are the most"),
        (created(&long), "the id of its task"),
    ] {
        let run = run(&mut direct(), CREATED, message);
        assert!(matches!(&run.result, Err(Failure::Reject(why)) if why.contains(words)), "{:?}", run.result);
    }
    let mut host = direct();
    settle(&mut host, CREATED, depending("T", &many[..60]));
    assert_eq!(list(&mut host, "")[0].waits_for.len(), 60);
}
