//! How long a deliberation may take.

use fleet_proto::orchestrator::v1::{DeliberateRequest, DeliberationStatus, TaskConstraints};

use super::support::*;

fn within(seconds: i32) -> DeliberateRequest {
    let constraints = TaskConstraints { timeout_seconds: seconds, ..TaskConstraints::default() };
    DeliberateRequest { constraints: Some(constraints), ..request() }
}

#[test]
fn the_constraints_bound_the_questions() {
    // A minute is left in the in-memory host, fifteen seconds of which are kept.
    for (asked, given) in [(20, 20), (0, 45), (-3, 45), (100_000, 45)] {
        let served = deliberate(&mut host(), &within(asked));
        assert!(served.inferences.iter().all(|question| question.timeout_seconds == given), "{asked}");
    }
    assert_eq!(
        deliberate(&mut host().config("timeout_seconds", 30), &within(0)).inferences[0].timeout_seconds,
        30
    );
}

#[test]
fn where_there_is_no_time_for_rounds_there_are_none() {
    let served = deliberate(&mut host(), &within(1));
    assert_eq!(steps(&served), [3, 0, 0]);
    let answer: fleet_proto::orchestrator::v1::DeliberateResponse = served.read();
    assert_eq!(answer.metadata.unwrap().tags["rounds"], "0");
}

#[test]
fn contract_6_deliberate_agents_that_all_run_out_of_time_are_a_time_out() {
    let mut host = host_with(|_, _, _| Err("timeout"));
    let run = run(&mut host, READY, ready("T"));
    assert_eq!(run.result, Ok(()), "another run would take as long");
    assert_eq!(run.on(COMPLETED)[0]["status"], "timeout");
    assert_eq!(run.on(DELIBERATED)[0]["error_type"], "timeout");
    assert_eq!(known(&mut host, "T").status(), DeliberationStatus::Timeout);
}
