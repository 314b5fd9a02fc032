//! The scoring stage, as the council asks it: whoever the operator put behind the upstream `scoring`. What a stage answers that
//! is not ours is checked here, and cut to what a record may hold. How a proposal is judged is the stage's business.

#[cfg(test)]
mod tests;

use cofferdam_sdk::{
    Failure,
    rpc::{self, Code, Status},
    warn,
};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse},
    orchestrator::v1::{CheckSuite, DeliberationResult, Proposal, TaskConstraints},
};
use prost::Message;

const UPSTREAM: &str = "scoring";
const SERVICE: &str = "cofferdam.council.v1.ScoringService";

/// A host takes requests of 1 MiB, unless it is told otherwise. What is over this goes without the proposals' earlier texts, and
/// then, if need be, with the beginnings of the proposals alone.
const REQUEST_BYTES: usize = 768 << 10;
/// Of what a stage says in words, so much is kept: of a text, of a list, and of one proposal's checks together.
const TEXT_BYTES: usize = 2_000;
const ENTRIES: usize = 50;
const WORDS_BYTES: usize = 8 << 10;

/// What the proposals are about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) task_id: &'a str,
    pub(crate) task_description: &'a str,
    /// As the orchestrator knows it: `DEV`.
    pub(crate) role: &'a str,
    pub(crate) constraints: Option<&'a TaskConstraints>,
}

/// The architect's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Of the chosen one, from 0.
    pub(crate) index: usize,
    /// For people.
    pub(crate) reason: String,
}

/// The proposals with their checks and scores, best first; equal ones keep their order. Ranks count from 1.
pub(crate) fn judge(
    subject: &Subject<'_>,
    mut proposals: Vec<Proposal>,
) -> Result<Vec<DeliberationResult>, Failure> {
    if proposals.is_empty() {
        return Ok(Vec::new());
    }
    let asked = ScoreRequest {
        task_id: subject.task_id.into(),
        task_description: subject.task_description.into(),
        role: subject.role.into(),
        constraints: subject.constraints.cloned(),
        proposals: for_the_stage(&proposals),
    };
    let answer: ScoreResponse = ask("Score", &asked)?;
    if answer.judged.len() != proposals.len() {
        return Err(fault(&format!("judged {} of {} proposals", answer.judged.len(), proposals.len())));
    }
    let mut results = Vec::with_capacity(proposals.len());
    for (proposal, judged) in proposals.drain(..).zip(answer.judged) {
        results.push(result(proposal, judged)?);
    }
    results.sort_by(|one, other| other.score.total_cmp(&one.score));
    for (rank, result) in (1..).zip(&mut results) {
        result.rank = rank;
    }
    Ok(results)
}

/// Which of the results, best first, the architect takes.
pub(crate) fn select(subject: &Subject<'_>, results: &[DeliberationResult]) -> Result<Choice, Failure> {
    if results.is_empty() {
        return Err(Failure::reject("there is nothing to select from: no proposal was made"));
    }
    let slim: Vec<Proposal> =
        for_the_stage(results.iter().map(|result| result.proposal.as_ref().unwrap_or(const { &NOTHING })));
    let asked = SelectRequest {
        task_id: subject.task_id.into(),
        task_description: subject.task_description.into(),
        role: subject.role.into(),
        constraints: subject.constraints.cloned(),
        results: results
            .iter()
            .zip(slim)
            .map(|(result, proposal)| DeliberationResult {
                proposal: Some(proposal),
                checks: result.checks.clone(),
                score: result.score,
                rank: result.rank,
            })
            .collect(),
    };
    let answer: SelectResponse = ask("Select", &asked)?;
    let index = usize::try_from(answer.index).ok().filter(|index| *index < results.len());
    let Some(index) = index else {
        return Err(fault(&format!("selected number {} of {}", answer.index, results.len())));
    };
    let mut reason = answer.reason;
    cut(&mut reason, TEXT_BYTES);
    Ok(Choice { index, reason })
}

const NOTHING: Proposal = Proposal {
    author_id: String::new(),
    author_role: String::new(),
    content: String::new(),
    created_at_ms: 0,
    revisions: Vec::new(),
};

/// The proposals as they are sent.
fn for_the_stage<'a>(proposals: impl IntoIterator<Item = &'a Proposal> + Clone) -> Vec<Proposal> {
    let contents: usize = proposals.clone().into_iter().map(|proposal| proposal.content.len()).sum();
    let revisions = proposals.clone().into_iter().flat_map(|proposal| &proposal.revisions);
    let whole = contents + revisions.map(String::len).sum::<usize>() <= REQUEST_BYTES;
    let most = match contents {
        0..=REQUEST_BYTES => REQUEST_BYTES,
        _ => REQUEST_BYTES / proposals.clone().into_iter().count(),
    };
    let sent = proposals.into_iter().map(|proposal| Proposal {
        revisions: if whole { proposal.revisions.clone() } else { Vec::new() },
        content: beginning(&proposal.content, most).to_owned(),
        author_id: proposal.author_id.clone(),
        author_role: proposal.author_role.clone(),
        created_at_ms: proposal.created_at_ms,
    });
    sent.collect()
}

fn ask<Req, Resp>(method: &str, request: &Req) -> Result<Resp, Failure>
where
    Req: Message,
    Resp: Message + Default,
{
    rpc::unary(UPSTREAM, &format!("{SERVICE}/{method}"), request).map_err(|status| failed(method, &status))
}

/// A stage that nobody serves yet may be on its way: it is a plugin like this one, and may be starting.
fn failed(method: &str, status: &Status) -> Failure {
    let mut reason = format!("the scoring stage, upstream {UPSTREAM:?}, {SERVICE}/{method}: {status}");
    let absent = !status.local && status.code == Code::Unimplemented;
    if absent || may_be_nobody(status) {
        reason.push_str(&format!(
            "; if that lasts, see to it that [upstreams.{UPSTREAM}] address leads to a gRPC server that serves {SERVICE}, or is \
             \"self\" and a plugin here serves it, such as council-scoring"
        ));
    }
    if status.is_transient() || absent { Failure::retry(reason) } else { Failure::reject(reason) }
}

/// What is told of an address where nobody listens, or somebody who speaks no gRPC.
fn may_be_nobody(status: &Status) -> bool {
    let codes = [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Internal, Code::Cancelled];
    !status.local && codes.contains(&status.code)
}

/// The stage was asked, and said what can't be. Another version of it may know better.
fn fault(what: &str) -> Failure {
    Failure::retry(format!(
        "the scoring stage {what}; look at whoever serves {SERVICE} as upstream {UPSTREAM:?}"
    ))
}

fn result(proposal: Proposal, judged: Judged) -> Result<DeliberationResult, Failure> {
    let Judged { checks, score } = judged;
    if !score.is_finite() {
        return Err(fault(&format!("scored the proposal of {} with {score}", proposal.author_id)));
    }
    if !(0.0..=1.0).contains(&score) {
        warn!("a score is from 0 to 1, taking the nearest"; author = proposal.author_id, score = score);
    }
    let mut checks = checks.unwrap_or_default();
    bound(&mut checks);
    // Adding zero makes a zero of minus zero, which would be ranked below it.
    Ok(DeliberationResult {
        proposal: Some(proposal),
        checks: Some(checks),
        score: score.clamp(0.0, 1.0) + 0.0,
        rank: 0,
    })
}

/// The words of a stage ride in the record of the deliberation, which has an end.
fn bound(checks: &mut CheckSuite) {
    let mut words = Words(WORDS_BYTES);
    if let Some(policy) = &mut checks.policy {
        words.cut(&mut policy.message);
        words.cut_all(&mut policy.violations);
    }
    if let Some(dryrun) = &mut checks.dryrun {
        words.cut(&mut dryrun.message);
        words.cut(&mut dryrun.output);
    }
    if let Some(lint) = &mut checks.lint {
        words.cut_all(&mut lint.errors);
    }
    checks.additional_checks.truncate(ENTRIES);
    for check in &mut checks.additional_checks {
        words.cut(&mut check.check_type);
        words.cut(&mut check.message);
        if !check.score.is_finite() {
            check.score = 0.0;
        }
        let details = std::mem::take(&mut check.details).into_iter().take(ENTRIES);
        check.details = details
            .map(|(mut key, mut value)| {
                words.cut(&mut key);
                words.cut(&mut value);
                (key, value)
            })
            .collect();
    }
}

/// How many more bytes of words there may be.
struct Words(usize);

impl Words {
    fn cut(&mut self, text: &mut String) {
        cut(text, self.0.min(TEXT_BYTES));
        self.0 = self.0.saturating_sub(text.len());
    }

    fn cut_all(&mut self, texts: &mut Vec<String>) {
        texts.truncate(ENTRIES);
        texts.iter_mut().for_each(|text| self.cut(text));
    }
}

fn cut(text: &mut String, most: usize) {
    let kept = beginning(text, most).len();
    if kept < text.len() {
        text.truncate(kept);
        text.push('…');
    }
}

fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
