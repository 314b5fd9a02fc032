//! What others are told of a deliberation, in as many bytes as there are: the event that carries all answers is written twice over, for
//! readers with and without an envelope.

use cofferdam_sdk::fleet::Decision;
use fleet_proto::orchestrator::v1::{DeliberationResult, Proposal};
use serde_json::{Value, json};

use crate::{fit, text};

/// Of all proposals in an event.
const ANSWERS: usize = 64 << 10;
/// Of the winner's text, where it stands alone.
const WINNER: usize = 32 << 10;
/// Of the winner's text, where it only reminds of it.
const BEGINNING: usize = 400;

/// The answers, best first, as `orchestration.deliberation.completed` has them.
pub(crate) fn answers(results: &[DeliberationResult]) -> Vec<Value> {
    let sizes: Vec<usize> = results.iter().map(|result| text::size(content(result))).collect();
    let level = fit::level(&sizes, ANSWERS);
    let answer = |result: &DeliberationResult| {
        let proposal = result.proposal.as_ref();
        json!({
            "agent_id": author(result),
            "role": proposal.map_or("", |proposal| &proposal.author_role),
            "proposal": text::beginning(content(result), level),
            "score": result.score,
            "rank": result.rank,
            "checks_passed": result.checks.as_ref().is_some_and(|checks| checks.all_passed),
        })
    };
    results.iter().map(answer).collect()
}

/// The winner's text.
pub(crate) fn winners_text(winner: &DeliberationResult) -> String {
    text::beginning(content(winner), WINNER)
}

/// What Context is to remember.
pub(crate) fn decision(id: String, task_id: &str, winner: &DeliberationResult, of: usize) -> Decision {
    let beginning = text::one_line(&text::beginning(content(winner), BEGINNING));
    Decision {
        id,
        kind: "TECHNICAL".into(),
        rationale: format!(
            "{} won among {of} with a score of {:.2}: {beginning}",
            author(winner),
            winner.score
        ),
        affected_subtask: Some(task_id.to_owned()),
    }
}

/// `DEC-<task_id>`.
pub(crate) fn decision_id(task_id: &str) -> String {
    format!("DEC-{task_id}")
}

pub(crate) fn author(result: &DeliberationResult) -> &str {
    result.proposal.as_ref().map_or("", |proposal: &Proposal| &proposal.author_id)
}

pub(crate) fn content(result: &DeliberationResult) -> &str {
    result.proposal.as_ref().map_or("", |proposal| &proposal.content)
}
