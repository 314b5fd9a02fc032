//! Answers of megabytes: what an agent said is cut, and a deliberation fits in one commit whatever was said.

use cofferdam_sdk::{log::Level, rpc::Code};
use fleet_proto::orchestrator::v1::{DeliberateRequest, TaskConstraints};
use prost::Message;

use super::support::*;

/// What an event may commit by default.
const COMMIT: usize = 960 << 10;

fn large(letter: char) -> String {
    // Quotes and line ends take the most room in JSON.
    format!("{letter}\"\n").repeat(60_000)
}

fn committed(run: &cofferdam_sdk::testing::Run, host: &cofferdam_sdk::testing::Host, answer: usize) -> usize {
    let published: usize = run.published.iter().map(|message| message.data.len() + 200).sum();
    let cells = host.cells();
    let cell: usize = ["result", "seen"]
        .iter()
        .filter_map(|key| cells.get("deliberation/T", key))
        .map(|value| value.len())
        .sum();
    published + cell + answer
}

#[test]
fn a_deliberation_of_megabytes_fits_in_a_commit() {
    let mut host = host_with(|step, agent, asked| {
        Ok(match step {
            Step::Proposal => large('a'),
            Step::Review => large('r'),
            Step::Revision => format!("{agent}{}{}", asked.prompt.len(), large('b')),
        })
    })
    .answers("scoring", SCORE, |request: fleet_proto::council::v1::ScoreRequest| {
        assert!(request.encoded_len() < 1 << 20, "a served request is at most 1 MiB");
        let long = "word ".repeat(1_000);
        let checks = fleet_proto::orchestrator::v1::CheckSuite {
            policy: Some(fleet_proto::orchestrator::v1::PolicyResult {
                violations: vec![long.clone(); 100],
                message: long,
                passed: false,
            }),
            ..Default::default()
        };
        let judged = fleet_proto::council::v1::Judged { checks: Some(checks), score: 0.5 };
        Ok(fleet_proto::council::v1::ScoreResponse { judged: vec![judged; request.proposals.len()] })
    });
    let served = deliberate(&mut host, &DeliberateRequest { num_agents: 16, rounds: 3, ..request() });
    let all = committed(&served, &host, served.answer.as_ref().unwrap().len());
    assert!(all < COMMIT * 4 / 5, "{all} bytes");
    assert!(served.inferences.iter().all(|asked| asked.prompt.len() <= 256 << 10));
    let answer: fleet_proto::orchestrator::v1::DeliberateResponse = served.read();
    assert_eq!(answer.results.len(), 16);
    assert!(answer.results.iter().all(|result| content(result).ends_with("[cut]")));
    let tags = answer.metadata.unwrap().tags;
    assert_eq!(
        (tags["cut_proposals"].as_str(), tags["dropped_revisions"].as_str()),
        ("16", "32"),
        "the third round said the same as the second"
    );
    assert!(served.logged(Level::Warn).iter().any(|line| line.contains("too long to be kept")));

    let mut host = host.attempt(1, false);
    let run = run(&mut host, READY, ready("T"));
    assert_eq!(run.result, Ok(()));
    let all = committed(&run, &host, 0);
    assert!(all < COMMIT * 4 / 5, "{all} bytes");
}

#[test]
fn an_answer_within_bounds_is_kept_whole() {
    let text = "x".repeat(30_000);
    let said = text.clone();
    let mut host = host_with(move |step, _, asked| {
        Ok(match step {
            Step::Proposal => said.clone(),
            Step::Review => "fine".into(),
            Step::Revision => block(&asked.prompt, "proposal").to_owned(),
        })
    });
    let answer = deliberated(&mut host, &request());
    assert!(answer.results.iter().all(|result| content(result) == text));
}

#[test]
fn a_task_that_no_prompt_holds_is_refused() {
    let mut host = host();
    let long = "x".repeat(97 << 10);
    let served = deliberate(&mut host, &DeliberateRequest { task_description: long.clone(), ..request() });
    is(&served, Code::InvalidArgument, "over 98304");
    let constraints = TaskConstraints { rubric: long.clone(), ..TaskConstraints::default() };
    let served = deliberate(&mut host, &DeliberateRequest { constraints: Some(constraints), ..request() });
    is(&served, Code::InvalidArgument, "over 98304");
    let mut event = ready("T");
    event["description"] = long.into();
    let run = run(&mut host, READY, event);
    assert_eq!(run.on(DELIBERATED)[0]["error_type"], "too_large");
    assert!(run.inferences.is_empty());
}

#[test]
fn the_largest_task_fits_with_the_largest_texts() {
    let mut host = host_with(|_, _, _| Ok(large('a')));
    let requirements = vec!["r".repeat(10); 1_000];
    let description = "--- end ---\n".repeat(6_000);
    let constraints = TaskConstraints { requirements, ..TaskConstraints::default() };
    let request =
        DeliberateRequest { task_description: description, constraints: Some(constraints), ..request() };
    let served = deliberate(&mut host, &request);
    assert!(served.answer.is_ok(), "{:?}", served.answer.as_ref().err());
}
