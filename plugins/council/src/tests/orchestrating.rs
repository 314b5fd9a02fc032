//! `Orchestrate`: the architect's choice among the best, and what the options change.

use cofferdam_sdk::rpc::Code;
use fleet_proto::{
    council::v1::{SelectRequest, SelectResponse},
    orchestrator::v1::{OrchestrateRequest, OrchestratorOptions},
};

use super::support::*;

const FOUR: [&str; 4] = ["a [0.9] no lint", "b [0.8] no dry run", "c [0.7]", "d [0.6]"];

fn options(peer_review: bool, rounds: i32, selection: bool) -> OrchestrateRequest {
    let options = OrchestratorOptions {
        enable_peer_review: peer_review,
        deliberation_rounds: rounds,
        enable_architect_selection: selection,
        ..OrchestratorOptions::default()
    };
    OrchestrateRequest { options: Some(options), ..orchestration() }
}

#[test]
fn contract_6_orchestrate_the_architect_picks_the_first_of_the_best_whose_dry_run_and_lint_pass() {
    let mut host = host_proposing(&FOUR).config("agents", 4);
    let answer = orchestrated(&mut host, &orchestration());
    let winner = answer.winner.unwrap();
    assert_eq!((author(&winner), winner.rank), ("agent-dev-003", 3));
    assert_eq!(authors(&answer.candidates), ["agent-dev-001", "agent-dev-002"]);
    assert_eq!(known(&mut host, "T").winner_id, "agent-dev-003");
    assert_eq!(answer.metadata.unwrap().tags["selected_by"], "architect");
}

#[test]
fn contract_6_orchestrate_the_first_where_none_passes() {
    let mut host = host_proposing(&["a [0.5] no lint", "b [0.9] no lint", "c [0.7] no dry run"]);
    let answer = orchestrated(&mut host, &orchestration());
    assert_eq!(author(&answer.winner.unwrap()), "agent-dev-002");
}

#[test]
fn contract_6_orchestrate_only_the_top_k_are_looked_at() {
    let mut host = host_proposing(&FOUR).config("agents", 4).config("architect_k", 2);
    let answer = orchestrated(&mut host, &orchestration());
    assert_eq!(author(&answer.winner.unwrap()), "agent-dev-001", "the third is not among them");
    assert_eq!(authors(&answer.candidates), ["agent-dev-002"]);
    assert_eq!(known(&mut host, "T").results.len(), 4, "all are kept");
}

#[test]
fn contract_6_orchestrate_without_selection_the_first_wins() {
    let mut host = host_proposing(&FOUR).config("agents", 4);
    let served = orchestrate(&mut host, &options(true, 1, false));
    assert!(served.calls.iter().all(|call| call.method != SELECT));
    let answer: fleet_proto::orchestrator::v1::OrchestrateResponse = served.read();
    assert_eq!(author(&answer.winner.unwrap()), "agent-dev-001");
    assert_eq!(authors(&answer.candidates), ["agent-dev-002", "agent-dev-003"]);
}

#[test]
fn contract_6_orchestrate_options_that_switch_on_nothing_switch_off_nothing() {
    for rounds in [0, 1] {
        let mut host = host_proposing(&FOUR).config("agents", 4);
        let served = orchestrate(&mut host, &options(false, rounds, false));
        assert_eq!(steps(&served), [4, 4, 4]);
        let answer: fleet_proto::orchestrator::v1::OrchestrateResponse = served.read();
        assert_eq!(author(&answer.winner.unwrap()), "agent-dev-003", "the architect's choice");
    }
}

#[test]
fn options_say_how_many_rounds_there_are() {
    let mut host = host().config("rounds", 2);
    assert_eq!(steps(&orchestrate(&mut host, &orchestration())), [3, 6, 6]);
    assert_eq!(steps(&orchestrate(&mut host, &options(false, 0, true))), [3, 0, 0]);
    assert_eq!(steps(&orchestrate(&mut host, &options(true, 0, true))), [3, 3, 3]);
    assert_eq!(steps(&orchestrate(&mut host, &options(false, 3, true))), [3, 9, 9]);
    let served = orchestrate(&mut host, &options(true, -1, true));
    is(&served, Code::InvalidArgument, "options.deliberation_rounds is -1");
}

#[test]
fn the_request_names_the_story_else_its_metadata_does() {
    let mut host = host();
    let told = orchestrate(&mut host, &OrchestrateRequest { story_id: " S-9 ".into(), ..orchestration() });
    assert_eq!(told.on(COMPLETED)[0]["story_id"], "S-9");
    let told = orchestrate(&mut host, &orchestration());
    assert_eq!(told.on(COMPLETED)[0]["story_id"], "S");
}

#[test]
fn what_the_request_lacks_is_said() {
    let mut host = host();
    is(
        &orchestrate(&mut host, &OrchestrateRequest { role: String::new(), ..orchestration() }),
        Code::InvalidArgument,
        "role",
    );
    is(
        &orchestrate(&mut host, &OrchestrateRequest { role: "PO".into(), ..orchestration() }),
        Code::NotFound,
        "PO",
    );
}

#[test]
fn a_choice_that_is_none_is_the_stages_fault() {
    let mut host = host().answers("scoring", SELECT, |_: SelectRequest| {
        Ok(SelectResponse { index: 3, reason: String::new() })
    });
    is(&orchestrate(&mut host, &orchestration()), Code::Unavailable, "scoring");
}
