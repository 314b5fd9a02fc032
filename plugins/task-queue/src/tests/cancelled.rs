//! Tasks that the workflow cancels.

use serde_json::{Value, json};

use super::support::*;

const OVER: &str = "workflow.task.completed";

fn over(task_id: &str, how: &str) -> Value {
    json!({"task_id": task_id, "story_id": "S", "final_state": how})
}

#[test]
fn a_task_that_is_cancelled_while_it_waits_is_not_begun_and_frees_what_waits_for_it() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("busy"));
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, depending("B", &["A"]));
    assert!(settle(&mut host, OVER, over("A", "cancelled")).tasks(DISPATCHED).is_empty());
    assert_eq!(
        (status(&mut host, "A").as_str(), listed(&mut host)),
        ("CANCELLED", vec!["busy".into(), "B".into()])
    );
    assert_eq!(settle(&mut host, ANSWERED, answer("busy")).tasks(DISPATCHED), ["B"]);
    // Its own agent's late word, and Planning's, change nothing.
    for (subject, data) in [(ANSWERED, answer("A")), (AGENT_FAILED, failure("A")), (CREATED, prior("A", 1))] {
        assert!(settle(&mut host, subject, data).subjects().is_empty(), "{subject}");
    }
    assert_eq!(status(&mut host, "A"), "CANCELLED");
}

#[test]
fn one_that_is_cancelled_while_an_agent_has_it_or_after_it_failed_lets_the_next_go() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("A"));
    settle(&mut host, CREATED, created("B"));
    settle(&mut host, CREATED, depending("C", &["B"]));
    assert_eq!(settle(&mut host, OVER, over("A", "cancelled")).tasks(DISPATCHED), ["B"]);
    assert!(settle(&mut host, AGENT_FAILED, failure("B")).tasks(DISPATCHED).is_empty());
    assert_eq!(settle(&mut host, OVER, over("B", "CANCELLED")).tasks(DISPATCHED), ["C"]);
}

#[test]
fn one_that_is_cancelled_before_the_queue_hears_of_it_is_never_begun() {
    let mut host = one_by_one();
    settle(&mut host, OVER, over("A", "cancelled"));
    assert!(settle(&mut host, CREATED, created("A")).tasks(DISPATCHED).is_empty());
    assert_eq!(settle(&mut host, CREATED, depending("B", &["A"])).tasks(DISPATCHED), ["B"]);
}

#[test]
fn one_that_is_done_in_the_workflow_ends_here_by_its_agents_word_alone() {
    let mut host = one_by_one();
    settle(&mut host, CREATED, created("A"));
    assert!(settle(&mut host, OVER, over("A", "done")).subjects().is_empty());
    assert_eq!(status(&mut host, "A"), "IN_PROGRESS");
    assert!(run(&mut host, OVER, json!({"story_id": "S", "final_state": "cancelled"})).result.is_err());
}
