//! The scoring stage replaced by a third party's, at another address.

use fleet_proto::{
    council::v1::{Judged, ScoreRequest},
    orchestrator::v1::{CheckResult, CheckSuite, Proposal, TaskConstraints},
};
use harness::{daemon::message, fleet::free_address, pipeline::bundled, scoring::Scoring};
use serde_json::json;
use tonic::Status;

use super::{Hall, ONE, THREE, TWO, content, contents, deliberation, orchestration, task};
use crate::both::on_both_buses;

on_both_buses! {
    another_stage_judges_and_selects_as_it_likes,
    a_stage_that_is_away_or_talks_nonsense_decides_nothing,
}

/// The longer the better.
fn by_length(request: &ScoreRequest) -> Result<Vec<Judged>, Status> {
    let judge = |proposal: &Proposal| {
        let length = CheckResult {
            check_type: "length".into(),
            passed: true,
            score: proposal.content.len() as f64 / 1000.0,
            ..Default::default()
        };
        let score = length.score;
        let checks = CheckSuite { additional_checks: vec![length], all_passed: true, ..Default::default() };
        Judged { checks: Some(checks), score }
    };
    Ok(request.proposals.iter().map(judge).collect())
}

impl Hall {
    /// Asks this one instead of the bundled plugin.
    fn judged_by(mut self, address: &str) -> Hall {
        self.setup = self.setup.upstream("scoring", address);
        self
    }
}

async fn another_stage_judges_and_selects_as_it_likes(hall: Hall) {
    let scoring = Scoring::start(1, by_length).await;
    let hall = hall.judged_by(&scoring.address);
    let running = hall.open().await;
    let mut asked = deliberation("t", &[ONE, TWO, THREE]);
    asked.constraints = Some(TaskConstraints {
        rubric: "Long is good.".into(),
        requirements: vec!["an outbox".into()],
        ..Default::default()
    });
    let answer = running.client.deliberate(asked.clone()).await.expect("an answer");
    let mut longest = [ONE, TWO, THREE];
    longest.sort_by_key(|text| std::cmp::Reverse(text.len()));
    assert_eq!(contents(&answer.results), longest);
    let checks = answer.results[0].checks.as_ref().expect("checks");
    assert_eq!(checks.additional_checks[0].check_type, "length");
    assert_eq!(running.told_once("t").await["result"], longest[0]);
    let [score] = &scoring.scored()[..] else { panic!("it was asked once") };
    assert_eq!((score.task_id.as_str(), score.role.as_str()), ("t", "DEV"));
    assert_eq!((&score.task_description, &score.constraints), (&asked.task_description, &asked.constraints));
    assert_eq!(scoring.selected().len(), 0);

    // The second of the best.
    let answer = running.client.orchestrate(orchestration("u", &[ONE, TWO, THREE])).await.expect("an answer");
    assert_eq!(content(&answer.winner.expect("a winner")), longest[1]);
    assert_eq!(contents(&answer.candidates), [longest[0], longest[2]]);
    let [select] = &scoring.selected()[..] else { panic!("it was asked once") };
    assert_eq!(contents(&select.results), longest);
    // What agents answer is judged there, too.
    for (agent, text) in [("a", THREE), ("b", TWO)] {
        let answer =
            json!({"task_id": "v", "agent_id": agent, "num_agents": 2, "result": {"proposal": text}});
        running.daemon.publish("agent.response.completed", answer).await;
    }
    assert_eq!(running.told_once("v").await["winner_id"], "b");
}

async fn a_stage_that_is_away_or_talks_nonsense_decides_nothing(hall: Hall) {
    // One too few.
    let scoring = Scoring::start(7, |request| Ok(by_length(request)?.split_off(1))).await;
    let hall = hall.judged_by(&scoring.address);
    let running = hall.open().await;
    let refused = running.client.deliberate(deliberation("t", &[ONE])).await.expect_err("nonsense");
    assert!(refused.message().contains("2 of 3"), "{refused}");
    drop(running);

    // An event waits for a stage to come, and no model is asked again.
    let address = free_address();
    let hall = hall.judged_by(&address).with(bundled("council").every_subscription("max-attempts = 100"));
    let running = hall.open().await;
    let before = hall.asked().await;
    let ready =
        json!({"task_id": "u", "story_id": "S", "role": "DEV", "description": task(&[ONE, TWO, THREE])});
    running.daemon.publish("cofferdam.queue.ready", ready).await;
    running.daemon.logged("a run that fails", |line| message(line).contains("the scoring stage")).await;
    assert_eq!(running.daemon.stored("cofferdam.queue.deliberated").await.len(), 0);
    let _scoring = Scoring::at(&address, 0, by_length).await;
    running.told_once("u").await;
    assert_eq!(hall.asked().await - before, 9);
    running.no_dead_letters().await;
}
