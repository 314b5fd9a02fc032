//! What the prompt is made of: the plan, which a derivation can't do without, and the context of each role, which it
//! can.

use cofferdam_sdk::{
    fleet::{Record, Role, requested_roles},
    rpc::{self, Code, Status},
    warn,
};
use fleet_proto::{
    context::v1::{GetContextRequest, GetContextResponse},
    task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext},
};

use crate::{ending::Trouble, prompt, settings::Settings};

const GET_PLAN: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";
const GET_CONTEXT: &str = "fleet.context.v1.ContextService/GetContext";
/// Of all roles together: well below the executor's limit for a prompt, which the plan has to fit into as well.
const CONTEXT_BYTES: usize = 96 << 10;

/// Completes the record (story, title, roles) from the plan and writes the prompt.
pub(crate) fn compose(record: &mut Record, roles: &[String], settings: &Settings) -> Result<String, Trouble> {
    let plan = plan(&record.plan_id)?;
    record.title = plan.title.clone();
    adopt_story(record, &plan)?;
    adopt_roles(record, roles, &plan.roles);
    let context = context(record, settings);
    let inputs = prompt::Inputs { plan: &plan, roles: &record.roles, context: &context };
    Ok(prompt::render(settings, &inputs))
}

fn plan(plan_id: &str) -> Result<PlanContext, Trouble> {
    let request = GetPlanContextRequest { plan_id: plan_id.into() };
    let answer: Result<GetPlanContextResponse, Status> = rpc::unary("planning", GET_PLAN, &request);
    match answer {
        Ok(GetPlanContextResponse { plan_context: Some(plan) }) => Ok(plan),
        Ok(_) => {
            Err(Trouble::last("plan_not_found", format!("Planning answered without the plan {plan_id:?}")))
        }
        Err(status) if status.code == Code::NotFound && !status.local => Err(Trouble::last(
            "plan_not_found",
            format!("Planning does not know the plan {plan_id:?}: {status}"),
        )),
        Err(status) => {
            Err(Trouble::passing("planning_unavailable", format!("GetPlanContext of {plan_id:?}: {status}")))
        }
    }
}

/// The trigger's story, else the plan's. Without one no task could be stored.
fn adopt_story(record: &mut Record, plan: &PlanContext) -> Result<(), Trouble> {
    let of_plan = plan.story_id.trim();
    if record.story_id.is_empty() {
        record.story_id = of_plan.into();
    } else if !of_plan.is_empty() && of_plan != record.story_id {
        let warning = format!(
            "the request names story {:?}, the plan {of_plan:?}; following the request",
            record.story_id
        );
        warn!("{warning}"; plan_id = record.plan_id);
        record.warn(warning);
    }
    if record.story_id.is_empty() {
        let detail = format!("neither the request nor the plan {:?} names a story", record.plan_id);
        return Err(Trouble::last("invalid_plan", detail));
    }
    Ok(())
}

/// The trigger's roles, else the plan's, else a developer.
fn adopt_roles(record: &mut Record, requested: &[String], of_plan: &[String]) {
    for names in [requested, of_plan] {
        let (roles, unknown) = requested_roles(names);
        if !unknown.is_empty() {
            let warning = format!("no task can have these roles: {}", unknown.join(", "));
            warn!("{warning}"; plan_id = record.plan_id);
            record.warn(warning);
        }
        if !roles.is_empty() {
            record.roles = roles;
            return;
        }
    }
    record.roles = vec!["DEVELOPER".into()];
}

/// What the roles should know of the story, as far as Context answers.
fn context(record: &mut Record, settings: &Settings) -> String {
    let mut text = String::new();
    for task_role in record.roles.clone() {
        let role = Role::parse(&task_role).map_or(task_role, |role| role.wire().to_owned());
        let request = GetContextRequest {
            story_id: record.story_id.clone(),
            role: role.clone(),
            phase: settings.context_phase.clone(),
            subtask_id: String::new(),
            token_budget: settings.context_token_budget,
        };
        let answer: Result<GetContextResponse, Status> = rpc::unary("context", GET_CONTEXT, &request);
        let warning = match answer {
            Ok(answer) if answer.context.trim().is_empty() => continue,
            Ok(answer) if text.len() + answer.context.len() <= CONTEXT_BYTES => {
                text.push_str(&format!("For {role}:\n{}\n\n", answer.context.trim()));
                continue;
            }
            Ok(answer) => {
                format!("the context for {role} has {} bytes, too many: left out", answer.context.len())
            }
            Err(status) => format!("going on without the context for {role}: {status}"),
        };
        warn!("{warning}"; plan_id = record.plan_id, story_id = record.story_id);
        record.warn(warning);
    }
    text.trim_end().to_owned()
}
