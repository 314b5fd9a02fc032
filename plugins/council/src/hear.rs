//! A council at work: all agents propose, then for each round each reviews the next one's proposal, whose author revises it. What
//! comes of it goes to the scoring stage. All questions of a step are asked at once, and follow from the task, the council and earlier
//! answers alone, so another run asks the same and is answered the same.

use cofferdam_sdk::{
    Failure, delivery,
    executor::{ExecutorError, Inference, infer_all},
    fleet::Timestamp,
    metrics, warn,
};
use fleet_proto::orchestrator::v1::{DeliberationResult, Proposal};

use crate::{
    agents::{self, Agent},
    budget::Budget,
    councils::{Council, Kind},
    fit::{self, Fitted},
    mock, prompt,
    scoring::{self, Subject},
    task::Task,
    text,
};

/// Of one text of an agent. A prompt holds two of them.
const TEXT: usize = 48 << 10;
/// Of what is told of a failure.
const ERROR: usize = 400;

/// An agent that gave no proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) agent_id: String,
    /// One word, as the executor has it.
    pub(crate) kind: String,
    pub(crate) error: String,
    may_pass: bool,
}

impl Failed {
    /// As the agent itself told.
    pub(crate) fn said(agent_id: &str, kind: &str, error: &str) -> Self {
        Self { agent_id: agent_id.into(), kind: kind.into(), error: error.into(), may_pass: false }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Heard {
    /// Best first; empty if all agents failed.
    pub(crate) results: Vec<DeliberationResult>,
    pub(crate) failed: Vec<Failed>,
    /// How many agents were asked.
    pub(crate) asked: u32,
    /// Rounds that were gone through.
    pub(crate) rounds: u32,
    pub(crate) fitted: Fitted,
    pub(crate) duration_ms: i64,
}

struct Draft {
    agent: Agent,
    proposal: Proposal,
}

/// `agents` and `rounds` are within [`crate::councils::fault_of_size`].
pub(crate) fn hear(
    task: &Task,
    council: &Council,
    agents: u32,
    rounds: u32,
    budget: &Budget,
) -> Result<Heard, Failure> {
    let agents = agents::of(&council.role, agents, council.temperature);
    let mut heard = Heard { asked: u32::try_from(agents.len()).unwrap_or(u32::MAX), ..Heard::default() };
    let mut drafts = propose(task, council, agents, budget, &mut heard.failed)?;
    if drafts.is_empty() {
        again(&heard.failed)?;
        heard.duration_ms = budget.elapsed_ms();
        return Ok(heard);
    }
    for round in 1..=rounds.min(task.most_rounds()) {
        if !budget.lasts() || !review(task, council, &mut drafts, budget)? {
            warn!("no time is left for more rounds"; task_id = task.task_id, role = task.role, rounds = round - 1);
            break;
        }
        heard.rounds = round;
    }
    let mut proposals: Vec<Proposal> = drafts.into_iter().map(|draft| draft.proposal).collect();
    heard.fitted = fit::proposals(&mut proposals, fit::RECORD);
    if heard.fitted != Fitted::default() {
        warn!("the proposals are too long to be kept whole"; task_id = task.task_id, role = task.role,
            dropped_revisions = heard.fitted.dropped, cut_proposals = heard.fitted.cut);
    }
    heard.results = scoring::judge(&subject(task), proposals)?;
    heard.duration_ms = budget.elapsed_ms();
    Ok(heard)
}

/// A task as the scoring stage has it.
pub(crate) fn subject(task: &Task) -> Subject<'_> {
    Subject {
        task_id: &task.task_id,
        task_description: &task.description,
        role: &task.role,
        constraints: Some(&task.constraints),
    }
}

/// The first step. An agent that fails drops out.
fn propose(
    task: &Task,
    council: &Council,
    agents: Vec<Agent>,
    budget: &Budget,
    failed: &mut Vec<Failed>,
) -> Result<Vec<Draft>, Failure> {
    let prompt = prompt::proposal(task);
    let answers = match council.kind {
        Kind::Mock => agents.iter().map(|agent| Ok(mock::proposal(&agent.id, task))).collect(),
        Kind::Model => ask(council, agents.iter().map(|agent| (agent, prompt.clone())), budget)?,
    };
    let mut drafts = Vec::with_capacity(agents.len());
    for (agent, answer) in agents.into_iter().zip(answers) {
        match answer {
            Ok(content) => {
                let proposal = Proposal {
                    author_id: agent.id.clone(),
                    author_role: task.role.clone(),
                    content,
                    created_at_ms: millis(),
                    revisions: Vec::new(),
                };
                drafts.push(Draft { agent, proposal });
            }
            Err(why) => {
                warn!("an agent gave no proposal"; task_id = task.task_id, agent_id = why.agent_id, kind = why.kind,
                    error = why.error);
                metrics::count("council_agents_failed", &[("kind", &why.kind)])?;
                failed.push(why);
            }
        }
    }
    Ok(drafts)
}

/// One round: agent i reviews the proposal of agent i + 1, the last that of the first, and the authors revise. A review or a revision that
/// fails leaves a proposal as it is. False if there was no time to revise.
fn review(task: &Task, council: &Council, drafts: &mut [Draft], budget: &Budget) -> Result<bool, Failure> {
    let next = |i: usize| (i + 1) % drafts.len();
    let given = match council.kind {
        Kind::Mock => drafts.iter().map(|draft| Ok(mock::review(&draft.agent.id))).collect(),
        Kind::Model => {
            let asked = drafts.iter().enumerate().map(|(i, reviewer)| {
                (&reviewer.agent, prompt::review(task, &drafts[next(i)].proposal.content))
            });
            ask(council, asked, budget)?
        }
    };
    let mut reviews: Vec<Option<String>> = vec![None; drafts.len()];
    for (i, review) in given.into_iter().enumerate() {
        reviews[next(i)] = kept(task, "a review", review);
    }
    if reviews.iter().all(Option::is_none) {
        return Ok(true);
    }
    if !budget.lasts() {
        return Ok(false);
    }
    let reviewed = drafts.iter().zip(&reviews).filter_map(|(draft, review)| Some((draft, review.as_ref()?)));
    let revised = match council.kind {
        Kind::Mock => {
            reviewed.map(|(draft, _)| Ok(mock::revision(&draft.agent.id, &draft.proposal.content))).collect()
        }
        Kind::Model => {
            let asked = reviewed.map(|(draft, review)| {
                (&draft.agent, prompt::revision(task, &draft.proposal.content, review))
            });
            ask(council, asked, budget)?
        }
    };
    let authors = drafts.iter_mut().zip(&reviews).filter(|(_, review)| review.is_some());
    for ((draft, _), revision) in authors.zip(revised) {
        let Some(better) = kept(task, "a revision", revision) else { continue };
        if better != draft.proposal.content {
            let earlier = std::mem::replace(&mut draft.proposal.content, better);
            draft.proposal.revisions.push(earlier);
        }
    }
    Ok(true)
}

fn kept(task: &Task, what: &str, answer: Result<String, Failed>) -> Option<String> {
    answer
        .inspect_err(|why| {
            warn!("{what} was not given, the proposal stays as it is"; task_id = task.task_id, agent_id = why.agent_id,
                kind = why.kind, error = why.error);
        })
        .ok()
}

/// Asks agents at once. A failure is what keeps all of them from being asked; another run may fare better.
fn ask<'a>(
    council: &Council,
    questions: impl Iterator<Item = (&'a Agent, String)>,
    budget: &Budget,
) -> Result<Vec<Result<String, Failed>>, Failure> {
    let (agents, inferences): (Vec<&Agent>, Vec<Inference>) = questions
        .map(|(agent, prompt)| {
            let mut asked = Inference::new(prompt)
                .system(agent.system.as_str())
                .temperature(agent.temperature)
                .seed(agent.seed)
                .timeout_seconds(budget.seconds());
            asked.model.clone_from(&council.model);
            asked.sampling.max_tokens = council.max_tokens;
            (agent, asked)
        })
        .unzip();
    let answers = agents.into_iter().zip(infer_all(&inferences));
    answers.map(|(agent, answer)| told(agent, answer.map(|answer| answer.text))).collect()
}

fn told(agent: &Agent, answer: Result<String, ExecutorError>) -> Result<Result<String, Failed>, Failure> {
    let failed = |kind: &str, error: &str, may_pass: bool| Failed {
        agent_id: agent.id.clone(),
        kind: kind.to_owned(),
        error: text::beginning(error, ERROR),
        may_pass,
    };
    match answer {
        Ok(said) => {
            let mut said = text::clean(&said);
            if said.is_empty() {
                return Ok(Err(failed("empty", "it said nothing, or nothing but what it thought", false)));
            }
            let bytes = said.len();
            if text::cut(&mut said, TEXT) {
                warn!("what an agent said is too long, and cut"; agent_id = agent.id, bytes = bytes);
            }
            Ok(Ok(said))
        }
        Err(ExecutorError::Failed { kind, message }) => {
            Ok(Err(failed(&kind, &message, AWAY.contains(&kind.as_str()))))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) const TIMEOUT: &str = "timeout";

/// Nobody has worked the question: the endpoints are down or busy, or the tokens of the hour are used up. An answer that was bad, or came too
/// late, is the agent's failure.
const AWAY: [&str; 4] = ["unreachable", "overloaded", "unavailable", "budget_exhausted"];

/// Nobody answered. A retry, if another run may fare better and there is one.
fn again(failed: &[Failed]) -> Result<(), Failure> {
    if failed.iter().any(|agent| agent.may_pass) && !delivery::last_attempt() {
        return Err(Failure::retry(format!("no agent answered: {}", reasons(failed))));
    }
    Ok(())
}

/// Who failed why, for people.
pub(crate) fn reasons(failed: &[Failed]) -> String {
    let one = |agent: &Failed| format!("{}: {}: {}", agent.agent_id, agent.kind, agent.error);
    text::beginning(&failed.iter().map(one).collect::<Vec<_>>().join("; "), 5 * ERROR)
}

fn millis() -> i64 {
    i64::try_from(Timestamp::now().nanos() / 1_000_000).unwrap_or_default()
}
