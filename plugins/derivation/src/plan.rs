//! The plan, as Planning has it, and what a derivation takes from it: its title, its story, its roles.

use cofferdam_sdk::{
    fleet::{Record, requested_roles},
    rpc::{self, Code, Status},
    warn,
};
use fleet_proto::task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext};

use crate::Trouble;

const GET_PLAN: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";

/// Asks Planning for the plan and completes the record from it: title, story, and roles, which so far are the requested ones.
pub fn plan(record: &mut Record) -> Result<PlanContext, Trouble> {
    let plan = fetch(&record.plan_id)?;
    record.title.clone_from(&plan.title);
    adopt_story(record, &plan)?;
    adopt_roles(record, &plan.roles);
    Ok(plan)
}

fn fetch(plan_id: &str) -> Result<PlanContext, Trouble> {
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
fn adopt_roles(record: &mut Record, of_plan: &[String]) {
    let requested = std::mem::take(&mut record.roles);
    for names in [requested.as_slice(), of_plan] {
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
