//! Agents that fail, and stages that do.

use cofferdam_sdk::{Failure, executor::ExecutorError, rpc::Code};
use fleet_proto::orchestrator::v1::{DeliberateRequest, DeliberationStatus};

use super::support::*;

#[test]
fn contract_6_deliberate_a_failing_agent_drops_out() {
    let mut host = host_with(|step, agent, asked| match (step, agent) {
        (Step::Proposal, 2) => Err("server_error"),
        _ => Ok(plain(step, agent, asked)),
    });
    let served = deliberate(&mut host, &request());
    assert_eq!(steps(&served), [3, 2, 2]);
    let answer: fleet_proto::orchestrator::v1::DeliberateResponse = served.read();
    assert_eq!(authors(&answer.results), ["agent-dev-001", "agent-dev-003"]);
    assert_eq!(content(&answer.results[0]), "proposal 1\nmended after: 3 reviews proposal 1");
    assert_eq!(content(&answer.results[1]), "proposal 3\nmended after: 1 reviews proposal 3");
    assert!(answer.metadata.unwrap().tags["failed_agents"].contains("agent-dev-002: server_error"));
    let told = &served.on(COMPLETED)[0];
    assert_eq!(told["failed_agents"][0]["agent_id"], "agent-dev-002");
    assert_eq!((told["total_agents"].as_u64(), told["failed_responses"].as_u64()), (Some(3), Some(1)));
    assert_eq!(served.metric("council_agents_failed"), 1.0);
}

#[test]
fn contract_6_deliberate_where_all_but_one_fail_it_goes_on_alone() {
    let mut host = host_with(|step, agent, asked| match (step, agent) {
        (Step::Proposal, 1 | 2) => Err("timeout"),
        _ => Ok(plain(step, agent, asked)),
    });
    let answer = deliberated(&mut host, &request());
    assert_eq!(content(&answer.results[0]), "proposal 3\nmended after: 3 reviews proposal 3");
}

#[test]
fn contract_6_deliberate_none_left_is_an_error() {
    let mut host = host_with(|_, _, _| Err("unknown_model"));
    let served = deliberate(&mut host, &request());
    is(&served, Code::FailedPrecondition, "agent-dev-003: unknown_model: as the test has it");
    is(&result_of(&mut host, "T"), Code::NotFound, "T");
}

#[test]
fn a_review_or_a_revision_that_fails_leaves_the_proposal_as_it_is() {
    let mut host = host_with(|step, agent, asked| match (step, agent) {
        (Step::Review, 1) | (Step::Revision, 1) => Err("timeout"),
        _ => Ok(plain(step, agent, asked)),
    });
    let answer = deliberated(&mut host, &request());
    let texts: Vec<&str> = answer.results.iter().map(content).collect();
    assert_eq!(texts, ["proposal 1", "proposal 2", "proposal 3\nmended after: 2 reviews proposal 3"]);
    assert!(answer.results[0].proposal.as_ref().unwrap().revisions.is_empty());
}

#[test]
fn where_all_reviews_fail_nobody_revises() {
    let mut host = host_with(|step, agent, asked| match step {
        Step::Review => Err("timeout"),
        _ => Ok(plain(step, agent, asked)),
    });
    assert_eq!(steps(&deliberate(&mut host, &request())), [3, 3, 0]);
}

#[test]
fn what_keeps_all_agents_from_being_asked_is_no_answer() {
    for (error, code) in [
        (ExecutorError::Unavailable("the bus".into()), Code::Unavailable),
        (ExecutorError::Denied("the model".into()), Code::FailedPrecondition),
        (ExecutorError::NotConfigured("no executor".into()), Code::FailedPrecondition),
    ] {
        let mut host = bare().completes_with(move |_| Some(Err(error.clone())));
        let served = deliberate(&mut host, &request());
        is(&served, code, "executor");
        let run = run(&mut host, READY, ready("T"));
        assert!(run.result.is_err() && run.published.is_empty());
    }
}

#[test]
fn an_event_whose_agents_may_answer_yet_is_tried_again_and_told_in_the_end() {
    let mut host = host_with(|_, _, _| Err("unreachable"));
    let first = run(&mut host, READY, ready("T"));
    assert!(matches!(first.result, Err(Failure::Retry { .. })), "{:?}", first.result);
    let mut host = host.attempt(3, true);
    let last = run(&mut host, READY, ready("T"));
    assert_eq!(last.result, Ok(()));
    let told = &last.on(DELIBERATED)[0];
    assert_eq!((told["agent_id"].as_str(), told["error_type"].as_str()), (Some(""), Some("unreachable")));
    assert!(told["error"].as_str().unwrap().contains("agent-dev-001: unreachable"));
    assert_eq!(last.on(COMPLETED)[0]["status"], "failed");
    assert_eq!(known(&mut host, "T").status(), DeliberationStatus::Failed);
}

#[test]
fn an_event_whose_agents_never_will_is_told_at_once() {
    let mut host = host_with(|_, _, _| Err("unknown_model"));
    let run = run(&mut host, READY, ready("T"));
    assert_eq!(run.on(DELIBERATED)[0]["error_type"], "unknown_model");
    let known = known(&mut host, "T");
    assert_eq!(known.status(), DeliberationStatus::Failed);
    assert!(known.error_message.contains("no agent of council-dev answered"));
}

#[test]
fn a_scoring_stage_that_is_down_is_asked_again() {
    let mut host = host().fails("scoring", SCORE, Code::Unavailable, "down");
    is(&deliberate(&mut host, &request()), Code::Unavailable, "scoring");
    let run = run(&mut host, READY, ready("T"));
    assert!(matches!(run.result, Err(Failure::Retry { .. })));
}

#[test]
fn an_agent_is_not_paid_for_twice_when_the_stage_fails() {
    let mut host = host().fails("scoring", SCORE, Code::Unavailable, "down");
    let event = cofferdam_sdk::testing::event(READY, ready("T"));
    let first = host.run(crate::handle, event.clone());
    assert_eq!(steps(&first), [3, 3, 3]);
    let mut host = host.answers("scoring", SCORE, |request: fleet_proto::council::v1::ScoreRequest| {
        let judged =
            vec![fleet_proto::council::v1::Judged { checks: None, score: 1.0 }; request.proposals.len()];
        Ok(fleet_proto::council::v1::ScoreResponse { judged })
    });
    let second = host.run(crate::handle, event);
    assert_eq!((second.result.clone(), steps(&second)), (Ok(()), [0, 0, 0]));
}

#[test]
fn more_agents_than_the_council_has_are_made_up() {
    let mut host = host();
    let answer = deliberated(&mut host, &DeliberateRequest { num_agents: 4, ..request() });
    assert_eq!(authors(&answer.results).last(), Some(&"agent-dev-004"));
}
