//! `Deliberate` and `Orchestrate`: a council is asked here and now, and its answer is the call's.

use cofferdam_sdk::{
    fleet::Cause,
    service::{Call, Status},
};
use fleet_proto::orchestrator::v1::{
    DeliberateRequest, DeliberateResponse, OrchestrateRequest, OrchestrateResponse, OrchestratorOptions,
    TaskConstraints,
};

use super::{given, number};
use crate::{
    budget::Budget,
    councils::{self, Council},
    orchestrate,
    settings::Settings,
    task::Task,
    totals::What,
    verdict::{Choice, Verdict},
};

pub(super) fn deliberate(call: &Call, request: DeliberateRequest) -> Result<DeliberateResponse, Status> {
    let DeliberateRequest { task_id, task_description, role, constraints, rounds, num_agents } = request;
    let task = task(&task_id, task_description, &role, constraints, "")?;
    let settings = Settings::read()?;
    let mut council = council(&task, &settings)?;
    // 0 in the request stands for one round, or for as many more as the council has.
    council.rounds = council.rounds.max(1);
    let rounds = Some(number("rounds", rounds)?).filter(|rounds| *rounds > 0);
    let agents = Some(number("num_agents", num_agents)?).filter(|agents| *agents > 0);
    let verdict = ask(&task, &council, agents, rounds, &settings, Choice::First)?;
    verdict.conclude(&Cause::of_call(call), &task, &call.id, What::Deliberation)?;
    Ok(DeliberateResponse {
        task_id: task.task_id,
        winner_id: verdict.winner_id().to_owned(),
        duration_ms: verdict.duration_ms,
        metadata: Some(verdict.metadata(&call.id)),
        results: verdict.results,
    })
}

pub(super) fn orchestrate(call: &Call, request: OrchestrateRequest) -> Result<OrchestrateResponse, Status> {
    let OrchestrateRequest { task_id, task_description, role, constraints, options, story_id, .. } = request;
    let task = task(&task_id, task_description, &role, constraints, &story_id)?;
    let settings = Settings::read()?;
    let council = council(&task, &settings)?;
    let k = settings.architect_k;
    let options = options.unwrap_or_default();
    let choice = match switches(&options) {
        Some((_, false)) => Choice::First,
        _ => Choice::Architect(k),
    };
    let rounds = rounds(&options)?;
    let verdict = ask(&task, &council, None, rounds, &settings, choice)?;
    verdict.conclude(&Cause::of_call(call), &task, &call.id, What::Orchestration)?;
    let best = verdict.results.iter().take(k).enumerate();
    let candidates = best.filter(|(at, _)| verdict.winner != Some(*at)).map(|(_, result)| result.clone());
    Ok(OrchestrateResponse {
        winner: verdict.won().cloned(),
        candidates: candidates.collect(),
        execution_id: call.id.clone(),
        duration_ms: verdict.duration_ms,
        metadata: Some(verdict.metadata(&call.id)),
    })
}

/// Whether there is peer review, and whether the architect selects. Options that switch on neither say nothing of them: what is off
/// can't be told from what is left out.
fn switches(options: &OrchestratorOptions) -> Option<(bool, bool)> {
    let switches = (options.enable_peer_review, options.enable_architect_selection);
    Some(switches).filter(|(review, selection)| *review || *selection)
}

/// What the options say of reviews: a number, else one round or none.
fn rounds(options: &OrchestratorOptions) -> Result<Option<u32>, Status> {
    let rounds = number("options.deliberation_rounds", options.deliberation_rounds)?;
    Ok(if rounds > 0 { Some(rounds) } else { switches(options).map(|(review, _)| u32::from(review)) })
}

fn task(
    task_id: &str,
    description: String,
    role: &str,
    constraints: Option<TaskConstraints>,
    story_id: &str,
) -> Result<Task, Status> {
    let task_id = given("task_id", task_id)?.to_owned();
    given("task_description", &description)?;
    let role = councils::canonical(given("role", role)?);
    let constraints = constraints.unwrap_or_default();
    let story_id = match story_id.trim() {
        "" => constraints.metadata.get("story_id").map_or("", |story_id| story_id.trim()),
        story_id => story_id,
    };
    let story_id = story_id.to_owned();
    let task = Task { task_id, description, role, constraints, story_id };
    task.fault().map_or(Ok(task), |fault| Err(Status::invalid_argument(fault)))
}

fn council(task: &Task, settings: &Settings) -> Result<Council, Status> {
    match councils::find(&task.role, settings)? {
        Some(council) => Ok(council),
        None => Err(Status::not_found(councils::none_for(&task.role, settings)?)),
    }
}

/// Without a winner there is no answer, but a status.
fn ask(
    task: &Task,
    council: &Council,
    agents: Option<u32>,
    rounds: Option<u32>,
    settings: &Settings,
    choice: Choice,
) -> Result<Verdict, Status> {
    // Whose fault it is if that can't be.
    let configured = agents.is_none() && rounds.is_none();
    let (agents, rounds) = (agents.unwrap_or(council.agents), rounds.unwrap_or(council.rounds));
    if let Some(fault) = councils::fault_of_size(agents, rounds) {
        return Err(if configured {
            Status::failed_precondition(format!("{} as it is configured: {fault}", council.id()))
        } else {
            Status::invalid_argument(fault)
        });
    }
    let budget = Budget::start(task.timeout_seconds(settings.timeout_seconds));
    let verdict = orchestrate::ask(task, council, agents, rounds, &budget, choice)?;
    if verdict.winner.is_some() { Ok(verdict) } else { Err(Status::failed_precondition(verdict.error)) }
}
