//! A host with the plugin's own manifest, agents that answer by what they are asked, a scoring stage, and the usual calls.

use cofferdam_sdk::{
    executor::{Completion, ExecutorError, Inference},
    rpc::{Code, Status},
    testing::{self, Host, Published, Run, Served, event},
};
use fleet_proto::{
    council::v1::{Judged, ScoreRequest, ScoreResponse, SelectRequest, SelectResponse},
    orchestrator::v1::{
        CheckSuite, DeliberateRequest, DeliberateResponse, DeliberationResult, DryRunResult,
        GetDeliberationResultRequest, GetDeliberationResultResponse, LintResult, OrchestrateRequest,
        OrchestrateResponse, PolicyResult, TaskConstraints,
    },
};
use prost::Message;
use serde_json::{Value, json};

pub(super) const COMPLETED: &str = "orchestration.deliberation.completed";
pub(super) const READY: &str = "cofferdam.queue.ready";
pub(super) const DELIBERATED: &str = "cofferdam.queue.deliberated";
pub(super) const APPROVED: &str = "planning.plan.approved";
pub(super) const REQUESTED: &str = "cofferdam.council.requested";
pub(super) const THROUGH: &str = "orchestration.plan.approved";
pub(super) const ENDED: &str = "cofferdam.council.ended";
pub(super) const FORGET: &str = "cofferdam.council.forget";
pub(super) const SCORE: &str = "cofferdam.council.v1.ScoringService/Score";
pub(super) const SELECT: &str = "cofferdam.council.v1.ScoringService/Select";
const SERVICE: &str = "fleet.orchestrator.v1.OrchestratorService";

/// What an agent is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Proposal,
    Review,
    Revision,
}

pub(super) fn step(asked: &Inference) -> Step {
    match asked.prompt.lines().next().unwrap_or_default() {
        "Wanted: a proposal" => Step::Proposal,
        "Wanted: a review" => Step::Review,
        "Wanted: a revision" => Step::Revision,
        other => panic!("no prompt begins with {other:?}"),
    }
}

/// Which agent is asked, from 1.
pub(super) fn agent(asked: &Inference) -> usize {
    let system = asked.system.as_deref().unwrap_or_default();
    let id = system.strip_prefix("You are ").and_then(|rest| rest.split(',').next()).unwrap_or_default();
    id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{system:?}"))
}

/// The text of a block of a prompt.
pub(super) fn block<'a>(prompt: &'a str, name: &str) -> &'a str {
    let (_, rest) =
        prompt.split_once(&format!("--- {name} ---\n")).unwrap_or_else(|| panic!("no {name} in {prompt}"));
    rest.split_once("\n--- end ---").map_or("", |(text, _)| text)
}

/// A host without models. The stage scores a text with the number in its last brackets, else 1, and lets lint and dry run pass unless it
/// has those words in it; its architect takes the first that passes both.
pub(super) fn bare() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
        .answers("scoring", SCORE, |request: ScoreRequest| {
            let judged = request.proposals.iter().map(|proposal| judged(&proposal.content)).collect();
            Ok::<_, Status>(ScoreResponse { judged })
        })
        .answers("scoring", SELECT, |request: SelectRequest| {
            let passes = |result: &DeliberationResult| {
                let checks = result.checks.clone().unwrap_or_default();
                checks.lint.is_some_and(|lint| lint.passed)
                    && checks.dryrun.is_some_and(|dryrun| dryrun.passed)
            };
            let index = request.results.iter().position(passes).unwrap_or(0);
            let index = u32::try_from(index).unwrap_or_default();
            Ok::<_, Status>(SelectResponse { index, reason: "the first that passes".into() })
        })
}

fn judged(content: &str) -> Judged {
    let (lint, dryrun) = (!content.contains("no lint"), !content.contains("no dry run"));
    let score = content.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
    Judged {
        checks: Some(CheckSuite {
            policy: Some(PolicyResult { passed: true, ..PolicyResult::default() }),
            lint: Some(LintResult { passed: lint, ..LintResult::default() }),
            dryrun: Some(DryRunResult { passed: dryrun, ..DryRunResult::default() }),
            additional_checks: Vec::new(),
            all_passed: lint && dryrun,
        }),
        score: score.unwrap_or(1.0),
    }
}

/// A host whose agents answer each step as the function says; nothing is a failure of that kind.
pub(super) fn host_with(
    answer: impl Fn(Step, usize, &Inference) -> Result<String, &'static str> + 'static,
) -> Host {
    bare().completes_with(move |asked| {
        let answered = answer(step(asked), agent(asked), asked);
        Some(match answered {
            Ok(text) => Ok(Completion::from(text.as_str())),
            Err(kind) => {
                Err(ExecutorError::Failed { kind: kind.into(), message: "as the test has it".into() })
            }
        })
    })
}

/// Every agent proposes a text of its own, and revises it by adding a line.
pub(super) fn host() -> Host {
    host_with(|step, agent, asked| Ok(plain(step, agent, asked)))
}

pub(super) fn plain(step: Step, agent: usize, asked: &Inference) -> String {
    match step {
        Step::Proposal => format!("proposal {agent}"),
        Step::Review => format!("{agent} reviews {}", block(&asked.prompt, "proposal").replace('\n', ", ")),
        Step::Revision => {
            format!("{}\nmended after: {}", block(&asked.prompt, "proposal"), block(&asked.prompt, "review"))
        }
    }
}

/// A host whose agents propose these texts and then leave them as they are.
pub(super) fn host_proposing(texts: &[&str]) -> Host {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    host_with(move |step, agent, asked| {
        Ok(match step {
            Step::Proposal => texts[agent - 1].clone(),
            Step::Review => "fine".into(),
            Step::Revision => block(&asked.prompt, "proposal").to_owned(),
        })
    })
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    host.run(crate::handle, event(subject, data))
}

/// Runs an event and then the plugin's own events that follow from it; returns all that was published.
pub(super) fn settle(host: &mut Host, subject: &str, data: impl ToString) -> Vec<Published> {
    let (mut all, mut waiting) = (Vec::new(), Vec::new());
    let first = run(host, subject, data);
    assert_eq!(first.result, Ok(()), "{subject}");
    waiting.extend(first.published.into_iter().rev());
    while let Some(message) = waiting.pop() {
        if [REQUESTED, ENDED].contains(&message.subject.as_str()) {
            let run = run(host, &message.subject, message.json());
            assert_eq!(run.result, Ok(()), "{}", message.subject);
            waiting.extend(run.published.into_iter().rev());
        }
        all.push(message);
    }
    all
}

pub(super) fn on(published: &[Published], subject: &str) -> Vec<Value> {
    published.iter().filter(|message| message.subject == subject).map(Published::json).collect()
}

pub(super) fn serve(host: &mut Host, method: &str, request: &impl Message, key: &str) -> Served {
    host.serve(crate::serve::serve, testing::call(&format!("{SERVICE}/{method}"), request).key(key))
}

pub(super) fn request() -> DeliberateRequest {
    DeliberateRequest {
        task_id: "T".into(),
        task_description: "Build the login.".into(),
        role: "DEV".into(),
        constraints: Some(TaskConstraints {
            rubric: "It is safe.".into(),
            requirements: vec!["must mention: tests".into()],
            metadata: [("story_id".to_owned(), "S".to_owned())].into(),
            ..TaskConstraints::default()
        }),
        ..DeliberateRequest::default()
    }
}

pub(super) fn deliberate(host: &mut Host, request: &DeliberateRequest) -> Served {
    serve(host, "Deliberate", request, request.task_id.trim())
}

pub(super) fn deliberated(host: &mut Host, request: &DeliberateRequest) -> DeliberateResponse {
    deliberate(host, request).read()
}

/// That request for an orchestration.
pub(super) fn orchestration() -> OrchestrateRequest {
    let DeliberateRequest { task_id, task_description, role, constraints, .. } = request();
    OrchestrateRequest { task_id, task_description, role, constraints, ..OrchestrateRequest::default() }
}

pub(super) fn orchestrate(host: &mut Host, request: &OrchestrateRequest) -> Served {
    serve(host, "Orchestrate", request, request.task_id.trim())
}

pub(super) fn orchestrated(host: &mut Host, request: &OrchestrateRequest) -> OrchestrateResponse {
    orchestrate(host, request).read()
}

pub(super) fn result_of(host: &mut Host, task_id: &str) -> Served {
    serve(host, "GetDeliberationResult", &GetDeliberationResultRequest { task_id: task_id.into() }, task_id)
}

pub(super) fn known(host: &mut Host, task_id: &str) -> GetDeliberationResultResponse {
    result_of(host, task_id).read()
}

pub(super) fn is(served: &Served, code: Code, words: &str) {
    let status = served.status();
    assert_eq!(status.code, code, "{status}");
    assert!(status.message.contains(words), "{words:?} is not in {status}");
    assert!(served.published.is_empty() && !served.wrote);
}

pub(super) fn author(result: &DeliberationResult) -> &str {
    crate::telling::author(result)
}

pub(super) fn content(result: &DeliberationResult) -> &str {
    crate::telling::content(result)
}

pub(super) fn authors(results: &[DeliberationResult]) -> Vec<&str> {
    results.iter().map(author).collect()
}

/// A task of the queue, which is next.
pub(super) fn ready(task_id: &str) -> Value {
    json!({"task_id": task_id, "story_id": "S", "plan_id": "P", "role": "DEV", "description": "Build the login.",
        "constraints": {"rubric": "It is safe."}, "attempt": 1})
}

/// How often each step was asked.
pub(super) fn steps(run: &Run) -> [usize; 3] {
    let of = |wanted| run.inferences.iter().filter(|asked| step(asked) == wanted).count();
    [of(Step::Proposal), of(Step::Review), of(Step::Revision)]
}
