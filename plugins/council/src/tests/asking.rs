//! `Deliberate`: who proposes, who reviews whom, and what is answered.

use cofferdam_sdk::rpc::Code;
use fleet_proto::{
    council::v1::ScoreRequest,
    orchestrator::v1::{DeliberateRequest, DeliberationStatus, TaskConstraints},
};
use prost::Message;

use super::support::*;

#[test]
fn contract_6_deliberate_all_agents_propose_and_no_two_are_told_the_same() {
    let mut host = host();
    let served = deliberate(&mut host, &request());
    let proposing: Vec<_> = served.inferences.iter().filter(|asked| step(asked) == Step::Proposal).collect();
    assert_eq!(proposing.iter().map(|asked| agent(asked)).collect::<Vec<_>>(), [1, 2, 3]);
    for (n, asked) in proposing.iter().enumerate() {
        assert!(proposing[..n].iter().all(|other| other.system != asked.system));
        assert!(proposing[..n].iter().all(|other| other.sampling.seed != asked.sampling.seed));
        assert!(asked.prompt.contains("Build the login.") && asked.prompt.contains("- must mention: tests"));
    }
}

#[test]
fn contract_6_deliberate_agent_i_reviews_the_next_ones_proposal_and_its_author_revises_it() {
    let mut host = host();
    let answer = deliberated(&mut host, &request());
    let text = |n: usize| {
        let of = answer.results.iter().find(|result| author(result) == format!("agent-dev-00{n}"));
        of.unwrap().proposal.clone().unwrap()
    };
    assert_eq!(text(1).content, "proposal 1\nmended after: 3 reviews proposal 1");
    assert_eq!(text(2).content, "proposal 2\nmended after: 1 reviews proposal 2");
    assert_eq!(text(3).content, "proposal 3\nmended after: 2 reviews proposal 3");
    assert_eq!(text(2).revisions, ["proposal 2"]);
    assert_eq!(text(2).author_role, "DEV");
    assert!(text(2).created_at_ms > 1_700_000_000_000);
}

#[test]
fn contract_6_deliberate_reviews_go_by_the_rubric() {
    let mut host = host();
    let served = deliberate(&mut host, &request());
    for asked in served.inferences.iter().filter(|asked| step(asked) == Step::Review) {
        assert!(asked.prompt.contains("\nRUBRIC:\n- It is safe.\n"), "{}", asked.prompt);
    }
}

#[test]
fn contract_6_deliberate_older_texts_go_to_revisions_round_by_round() {
    let mut host = host_with(|step, agent, asked| {
        Ok(match step {
            Step::Proposal => format!("{agent}"),
            Step::Review => "better".into(),
            Step::Revision => format!("{}+", block(&asked.prompt, "proposal")),
        })
    });
    let served = deliberate(&mut host, &DeliberateRequest { rounds: 3, ..request() });
    assert_eq!(steps(&served), [3, 9, 9]);
    let answer: fleet_proto::orchestrator::v1::DeliberateResponse = served.read();
    let proposal = answer.results[0].proposal.clone().unwrap();
    assert_eq!(proposal.content, "1+++");
    assert_eq!(proposal.revisions, ["1", "1+", "1++"]);
}

#[test]
fn contract_6_deliberate_no_rounds_are_one_round() {
    let mut host = host();
    assert_eq!(steps(&deliberate(&mut host, &request())), [3, 3, 3]);
    let mut host = super::support::host().config("rounds", 0);
    assert_eq!(steps(&deliberate(&mut host, &request())), [3, 3, 3], "whatever the council does otherwise");
    let mut host = super::support::host().config("rounds", 2);
    assert_eq!(steps(&deliberate(&mut host, &request())), [3, 6, 6]);
    assert_eq!(steps(&deliberate(&mut host, &DeliberateRequest { rounds: 1, ..request() })), [3, 3, 3]);
}

#[test]
fn contract_6_deliberate_without_peer_review_nobody_reviews() {
    let mut host = host().config("rounds", 0);
    let served = orchestrate(&mut host, &orchestration());
    assert_eq!(steps(&served), [3, 0, 0]);
    let answer: fleet_proto::orchestrator::v1::OrchestrateResponse = served.read();
    assert!(answer.candidates.iter().all(|result| result.proposal.as_ref().unwrap().revisions.is_empty()));
}

#[test]
fn contract_6_deliberate_sorts_by_score_descending_and_stable_and_ranks_from_1() {
    let mut host = host_proposing(&["a [0.5]", "b [1.0]", "c [0.5]"]);
    let answer = deliberated(&mut host, &request());
    assert_eq!(authors(&answer.results), ["agent-dev-002", "agent-dev-001", "agent-dev-003"]);
    assert_eq!(answer.results.iter().map(|result| result.rank).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(answer.winner_id, "agent-dev-002");
}

#[test]
fn the_stage_judges_the_revised_texts_of_the_task_at_hand() {
    let mut host = host();
    let served = deliberate(&mut host, &request());
    let asked = served.calls.iter().find(|call| call.method == SCORE).unwrap();
    let asked = ScoreRequest::decode(asked.request.as_slice()).unwrap();
    assert_eq!((asked.task_id.as_str(), asked.role.as_str()), ("T", "DEV"));
    assert_eq!(asked.task_description, "Build the login.");
    assert_eq!(asked.constraints, request().constraints);
    assert!(asked.proposals.iter().all(|proposal| proposal.content.contains("mended after")));
}

#[test]
fn the_answer_says_who_gave_it() {
    let mut host = host();
    let answer = deliberated(&mut host, &request());
    let metadata = answer.metadata.unwrap();
    assert_eq!(answer.task_id, "T");
    assert_eq!(metadata.orchestrator_version, env!("CARGO_PKG_VERSION"));
    assert!(!metadata.execution_id.is_empty() && metadata.timestamp_ms > 1_700_000_000_000);
    assert_eq!(metadata.tags["council"], "council-dev");
    assert_eq!(metadata.tags["rounds"], "1");
}

#[test]
fn contract_6_deliberate_a_deliberation_is_told_with_its_decision() {
    let mut host = host_proposing(&["a [0.5]", "b [1.0]", "c [0.5]"]);
    let served = deliberate(&mut host, &request());
    let told = &served.on(COMPLETED)[0];
    assert_eq!((told["task_id"].as_str(), told["story_id"].as_str()), (Some("T"), Some("S")));
    assert_eq!(
        (told["status"].as_str(), told["winner_id"].as_str()),
        (Some("completed"), Some("agent-dev-002"))
    );
    assert_eq!(told["result"], "b [1.0]");
    let decision = &told["decisions"][0];
    assert_eq!((decision["id"].as_str(), decision["type"].as_str()), (Some("DEC-T"), Some("TECHNICAL")));
    assert_eq!(decision["affected_subtask"], "T");
    let rationale = decision["rationale"].as_str().unwrap();
    assert!(
        rationale.contains("agent-dev-002") && rationale.contains("1.00") && rationale.contains("b [1.0]")
    );
    let results = told["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!((&results[0]["rank"], &results[0]["proposal"]), (&1.into(), &"b [1.0]".into()));
    assert_eq!((told["total_agents"].as_u64(), told["successful_responses"].as_u64()), (Some(3), Some(3)));
    assert_eq!(served.metric("council_deliberations"), 1.0);
}

#[test]
fn what_was_answered_is_known_afterwards() {
    let mut host = host();
    let answer = deliberated(&mut host, &request());
    let known = known(&mut host, "T");
    assert_eq!(known.status(), DeliberationStatus::Completed);
    assert_eq!((known.results, known.winner_id), (answer.results, answer.winner_id));
    assert_eq!(known.metadata, answer.metadata.map(|metadata| known.metadata.clone().unwrap_or(metadata)));
    is(&result_of(&mut host, "other"), Code::NotFound, "\"other\"");
    is(&result_of(&mut host, ""), Code::InvalidArgument, "task_id");
}

#[test]
fn contract_6_deliberate_an_empty_task_or_role_is_invalid() {
    let mut host = host();
    let without = |change: fn(&mut DeliberateRequest)| {
        let mut request = request();
        change(&mut request);
        request
    };
    let served = deliberate(&mut host, &without(|request| request.task_id = " ".into()));
    is(&served, Code::InvalidArgument, "task_id is empty");
    let served = deliberate(&mut host, &without(|request| request.task_description.clear()));
    is(&served, Code::InvalidArgument, "task_description is empty");
    let served = deliberate(&mut host, &without(|request| request.role = "\t".into()));
    is(&served, Code::InvalidArgument, "role is empty");
    assert!(served.inferences.is_empty());
}

#[test]
fn contract_6_deliberate_without_a_council_is_not_found() {
    let mut host = host();
    let served = deliberate(&mut host, &DeliberateRequest { role: "po".into(), ..request() });
    is(&served, Code::NotFound, "\"PO\"; there are: ARCHITECT, DATA, DEV, DEVOPS, QA");
    let served = deliberate(&mut host, &DeliberateRequest { role: "x".repeat(2_000), ..request() });
    assert_eq!(served.status().code, Code::NotFound);
}

#[test]
fn a_role_is_known_by_its_aliases() {
    let mut host = host();
    let answer = deliberated(&mut host, &DeliberateRequest { role: "developer".into(), ..request() });
    assert_eq!(answer.winner_id, "agent-dev-001");
}

#[test]
fn agents_are_as_many_as_the_request_says_up_to_sixteen() {
    let mut host = host();
    for (asked, answered) in [(0, 3), (1, 1), (2, 2), (5, 5), (16, 16)] {
        let answer = deliberated(&mut host, &DeliberateRequest { num_agents: asked, ..request() });
        assert_eq!(answer.results.len(), answered, "{asked}");
    }
    for (agents, rounds, words) in [
        (17, 1, "17 agents and 1 rounds"),
        (16, 8, "here it is 272"),
        (-1, 1, "num_agents is -1"),
        (3, -1, "rounds is -1"),
        (3, i32::MAX, "rounds"),
    ] {
        let served = deliberate(&mut host, &DeliberateRequest { num_agents: agents, rounds, ..request() });
        is(&served, Code::InvalidArgument, words);
        assert!(served.inferences.is_empty());
    }
}

#[test]
fn contract_6_deliberate_an_agent_alone_reviews_itself() {
    let mut host = host();
    let answer = deliberated(&mut host, &DeliberateRequest { num_agents: 1, ..request() });
    let only = &answer.results[0];
    assert_eq!(content(only), "proposal 1\nmended after: 1 reviews proposal 1");
}

#[test]
fn max_iterations_bounds_the_rounds() {
    let mut host = host();
    for (most, reviews) in [(0, 9), (-4, 9), (2, 6), (7, 9)] {
        let constraints = TaskConstraints { max_iterations: most, ..TaskConstraints::default() };
        let request = DeliberateRequest { rounds: 3, constraints: Some(constraints), ..request() };
        assert_eq!(steps(&deliberate(&mut host, &request)), [3, reviews, reviews], "{most}");
    }
}

#[test]
fn a_model_that_councils_are_configured_with_is_asked() {
    let mut host = host().config("model", "small").config("max_tokens", 100).config("temperature", 0.0);
    for asked in &deliberate(&mut host, &request()).inferences {
        assert_eq!(asked.model.as_deref(), Some("small"));
        assert_eq!((asked.sampling.max_tokens, asked.sampling.temperature), (Some(100), Some(0.0)));
    }
    let mut host = super::support::host().config("max_tokens", 0);
    for asked in &deliberate(&mut host, &request()).inferences {
        assert_eq!((asked.model.as_deref(), asked.sampling.max_tokens), (None, None));
    }
}
