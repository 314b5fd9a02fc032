//! An approved plan: the council of each of its roles is asked about it, one event a role, so that each fails alone. Once all are
//! through, `orchestration.plan.approved` says so. All of it lives in the cell of the plan's id.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    Failure, delivery,
    fleet::{Cause, Incoming, Malformed, OrchestratedPlanApproved, Outgoing, PlanApproved, Seen, Timestamp},
    info, rpc, state, warn,
};
use fleet_proto::{
    orchestrator::v1::{DeliberationStatus, GetDeliberationResultResponse, TaskConstraints},
    task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext},
};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, councils, dropped, fit, forget, malformed, orchestrate, record,
    settings::{self, Settings},
    task::Task,
    telling, text,
    totals::{Ended, What},
    verdict::{self, Verdict},
};

const SEEN: &str = "seen";
/// More roles than the fleet has; the rest are not asked.
const MOST_ROLES: usize = 32;
/// Of what Planning says of a plan, so that a council can be asked about it.
const MOST_OF_A_PLAN: usize = 64 << 10;

/// An approval whose roles are not all through.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    plan_id: String,
    story_id: String,
    approved_by: String,
    /// As they were asked for.
    roles: Vec<String>,
    /// As the orchestrator knows them.
    pending: Vec<String>,
    /// The event of the approval.
    execution_id: String,
}

/// The key of an approval, by its event.
fn key(execution_id: &str) -> String {
    format!("plan/{execution_id}")
}

/// `cofferdam.council.requested`: a role's council is to be asked about a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requested {
    /// The plan's id.
    task_id: String,
    plan_id: String,
    story_id: String,
    role: String,
    description: String,
    /// Of the approval.
    execution_id: String,
}

impl Requested {
    fn read(message: &Incoming) -> Result<Self, Malformed> {
        let task_id = message.required(&["task_id", "plan_id"])?;
        Ok(Self {
            plan_id: message.text(&["plan_id"]).unwrap_or_else(|| task_id.clone()),
            story_id: message.text(&["story_id"]).unwrap_or_default(),
            role: message.required(&["role"])?,
            description: message.text(&["description"]).unwrap_or_default(),
            execution_id: message.required(&["execution_id"])?,
            task_id,
        })
    }
}

impl Outgoing for Requested {
    const SUBJECT: &'static str = "cofferdam.council.requested";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `planning.plan.approved`.
pub(crate) fn approved(message: &Incoming) -> Result<(), Failure> {
    let plan = PlanApproved::read(message).map_err(malformed)?;
    message.keyed_by(&plan.plan_id).map_err(malformed)?;
    let mut seen: Seen = state::load(SEEN)?.unwrap_or_default();
    if !seen.first_time(message) {
        return dropped("duplicate");
    }
    let cause = message.cause();
    let mut roles: Vec<String> = Vec::new();
    if settings::deliberate_plans()? {
        roles = canonical(&plan);
    }
    let mut progress = Progress {
        story_id: plan.story_id.clone().unwrap_or_default(),
        approved_by: plan.approved_by.clone().unwrap_or_default(),
        roles: plan.roles.clone(),
        pending: roles.clone(),
        plan_id: plan.plan_id,
        execution_id: cause.event_id.clone(),
    };
    if roles.is_empty() {
        progress.through(&cause)?;
    } else {
        let description = describe(&mut progress)?;
        let execution_id = progress.execution_id.clone();
        for role in roles {
            let requested = Requested {
                task_id: progress.plan_id.clone(),
                plan_id: progress.plan_id.clone(),
                story_id: progress.story_id.clone(),
                description: description.clone(),
                execution_id: execution_id.clone(),
                role,
            };
            WRITER.emit(&cause, &requested, &format!("requested:{execution_id}:{}", requested.role))?;
        }
        record::save(&GetDeliberationResultResponse {
            task_id: progress.plan_id.clone(),
            status: DeliberationStatus::Pending.into(),
            metadata: Some(verdict::metadata(&execution_id, BTreeMap::new())),
            ..GetDeliberationResultResponse::default()
        })?;
        info!("a plan goes to its councils"; plan_id = progress.plan_id, roles = progress.pending.join(", "));
        state::save(&key(&execution_id), &progress)?;
    }
    Ok(state::save(SEEN, &seen)?)
}

/// Its roles as the orchestrator knows them, each once.
fn canonical(plan: &PlanApproved) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for role in plan.roles.iter().flat_map(|names| names.split(',')) {
        let role = text::beginning(&councils::canonical(role), MOST_OF_A_ROLE);
        if !role.is_empty() && !roles.contains(&role) {
            roles.push(role);
        }
    }
    if roles.len() > MOST_ROLES {
        warn!("the plan has more roles than are asked"; plan_id = plan.plan_id, roles = roles.len(), asked = MOST_ROLES);
        roles.truncate(MOST_ROLES);
    }
    roles
}

/// None of this length has a council.
const MOST_OF_A_ROLE: usize = 256;

/// What the councils are told of the plan: as Planning has it, else its name alone. Asked once for all roles, so that all are told the same
/// on every run. A story that the approval does not name comes from there, too.
fn describe(progress: &mut Progress) -> Result<String, Failure> {
    const METHOD: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";
    let asked = GetPlanContextRequest { plan_id: progress.plan_id.clone() };
    let mut description = format!("Propose how the plan {} is carried out.\n", progress.plan_id);
    match rpc::unary::<_, GetPlanContextResponse>("planning", METHOD, &asked) {
        Ok(answer) => {
            let plan = answer.plan_context.unwrap_or_default();
            if progress.story_id.is_empty() {
                progress.story_id.clone_from(&plan.story_id);
            }
            description.push_str(&written(&plan));
        }
        Err(status) if status.is_transient() && !delivery::last_attempt() => return Err(status.into()),
        Err(status) => {
            warn!("Planning tells nothing of the plan, its councils know its name alone"; plan_id = progress.plan_id,
                error = status);
        }
    }
    Ok(text::beginning(&description, MOST_OF_A_PLAN))
}

fn written(plan: &PlanContext) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("Title", &plan.title),
        ("Description", &plan.description),
        ("Technical notes", &plan.technical_notes),
    ] {
        if !value.trim().is_empty() {
            text.push_str(&format!("{name}: {}\n", value.trim()));
        }
    }
    if !plan.acceptance_criteria.is_empty() {
        text.push_str("Acceptance criteria:\n");
    }
    for criterion in &plan.acceptance_criteria {
        text.push_str(&format!("- {}\n", text::one_line(criterion)));
    }
    text
}

/// `cofferdam.council.requested`.
pub(crate) fn requested(message: &Incoming) -> Result<(), Failure> {
    let requested = Requested::read(message).map_err(malformed)?;
    message.keyed_by(&requested.task_id).map_err(malformed)?;
    let key = key(&requested.execution_id);
    let Some(mut progress) = state::load::<Progress>(&key)? else { return dropped("duplicate") };
    let Some(at) = progress.pending.iter().position(|role| *role == requested.role) else {
        return dropped("duplicate");
    };
    let settings = Settings::read()?;
    let task = Task {
        task_id: requested.task_id,
        description: requested.description,
        role: requested.role,
        constraints: TaskConstraints {
            metadata: [("plan_id".to_owned(), requested.plan_id)].into(),
            ..TaskConstraints::default()
        },
        story_id: requested.story_id,
    };
    let verdict = orchestrate::event(&task, &settings)?;
    let cause = message.cause();
    let decision_id = format!("{}-{}", telling::decision_id(&task.task_id), task.role);
    verdict.tell(&cause, &task, &cause.event_id, decision_id)?;
    let ended = Ended::new(&task.task_id, &cause.event_id, What::Orchestration, verdict.duration_ms);
    WRITER.emit(&cause, &ended.of_several(), &format!("ended:{}", cause.event_id))?;
    progress.pending.remove(at);
    let over = progress.pending.is_empty();
    record::save(&together(&verdict, &task, &requested.execution_id, over)?)?;
    if !over {
        return Ok(state::save(&key, &progress)?);
    }
    state::delete(&key)?;
    progress.through(&cause)?;
    forget::later(&cause, &task.task_id, &requested.execution_id)
}

/// The record of the plan with one more role in it. The winner is the first of the best among all roles.
fn together(
    verdict: &Verdict,
    task: &Task,
    execution_id: &str,
    over: bool,
) -> Result<GetDeliberationResultResponse, Failure> {
    let one = verdict.record(&task.task_id, execution_id);
    let known = record::load()?.filter(|record| record::execution(record) == execution_id);
    let mut all = known.unwrap_or_else(|| GetDeliberationResultResponse {
        task_id: task.task_id.clone(),
        ..GetDeliberationResultResponse::default()
    });
    let score = |record: &GetDeliberationResultResponse, winner: &str| {
        let won = record.results.iter().find(|result| telling::author(result) == winner);
        won.map_or(-1.0, |result| result.score)
    };
    if score(&one, &one.winner_id) > score(&all, &all.winner_id) {
        all.winner_id.clone_from(&one.winner_id);
    }
    all.results.extend(one.results);
    let proposals = all.results.iter_mut().filter_map(|result| result.proposal.as_mut());
    fit::proposals(proposals, fit::RECORD);
    fit::results(&mut all.results, fit::RESULTS);
    all.duration_ms = all.duration_ms.saturating_add(one.duration_ms);
    if !one.error_message.is_empty() {
        let earlier = std::mem::take(&mut all.error_message);
        let between = if earlier.is_empty() { "" } else { "; " };
        all.error_message =
            text::beginning(&format!("{earlier}{between}{}: {}", task.role, one.error_message), 8_000);
    }
    all.metadata = Some(verdict::metadata(execution_id, BTreeMap::new()));
    let status = match (over, all.results.is_empty()) {
        (false, _) => DeliberationStatus::InProgress,
        (true, false) => DeliberationStatus::Completed,
        (true, true) => DeliberationStatus::Failed,
    };
    all.status = status.into();
    Ok(all)
}

impl Progress {
    /// `orchestration.plan.approved`.
    fn through(self, cause: &Cause) -> Result<(), Failure> {
        let approved = OrchestratedPlanApproved {
            task_id: self.plan_id.clone(),
            plan_id: self.plan_id,
            story_id: self.story_id,
            approved_by: self.approved_by,
            roles: self.roles,
            timestamp: Timestamp::now(),
        };
        WRITER.emit(cause, &approved, &format!("approved:{}", self.execution_id))?;
        info!("the councils are through with a plan"; plan_id = approved.plan_id);
        Ok(())
    }
}
