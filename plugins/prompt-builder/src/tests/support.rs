//! A host with the plugin's own manifest, a Planning that knows one plan, and a Context that knows its story.

use cofferdam_sdk::{
    Event,
    rpc::{Code, Status},
    testing::{Host, Run, Scheduled, event},
};
use fleet_proto::{
    context::v1::{GetContextRequest, GetContextResponse},
    task_derivation::v1::{GetPlanContextRequest, GetPlanContextResponse, PlanContext},
};
use serde_json::{Value, json};

pub(super) const APPROVED: &str = "planning.plan.approved";
pub(super) const REQUESTED: &str = "task.derivation.requested";
pub(super) const REJECTED: &str = "cofferdam.derivation.rejected";
pub(super) const TIMEOUT: &str = "cofferdam.derivation.timeout";
pub(super) const DUE: &str = "cofferdam.derivation.due";
pub(super) const QUEUED: &str = "cofferdam.derivation.queued";
pub(super) const FAILED: &str = "task.derivation.failed";
pub(super) const GET_PLAN: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/GetPlanContext";
pub(super) const GET_CONTEXT: &str = "fleet.context.v1.ContextService/GetContext";

pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn plan() -> PlanContext {
    PlanContext {
        plan_id: "plan-1".into(),
        story_id: "story-1".into(),
        title: "Guest checkout".into(),
        description: "People buy without an account.".into(),
        acceptance_criteria: vec!["A cart lives a day".into(), "Payment is taken once".into()],
        technical_notes: "Use the payment gateway.".into(),
        roles: vec!["developer".into(), "tester".into()],
    }
}

pub(super) fn host() -> Host {
    host_with(plan())
}

/// Asks again at once: the pause has tests of its own.
pub(super) fn host_with(plan: PlanContext) -> Host {
    patient_host(plan).config("backoff_seconds", 0)
}

/// With the manifest's own pause.
pub(super) fn patient_host(plan: PlanContext) -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
        .answers("planning", GET_PLAN, move |request: GetPlanContextRequest| {
            if request.plan_id == plan.plan_id {
                Ok(GetPlanContextResponse { plan_context: Some(plan.clone()) })
            } else {
                Err(Status::new(Code::NotFound, "no such plan"))
            }
        })
        .answers("context", GET_CONTEXT, |request: GetContextRequest| {
            Ok(GetContextResponse {
                context: format!("{} of {} in {}", request.role, request.story_id, request.phase),
                ..GetContextResponse::default()
            })
        })
}

pub(super) fn run(host: &mut Host, event: Event) -> Run {
    host.run(crate::handle, event)
}

/// Delivers an approval and expects a job.
pub(super) fn open(host: &mut Host) -> Run {
    let run = run(host, event(APPROVED, json!({"plan_id": "plan-1"})));
    assert_eq!((run.result.clone(), run.jobs.len()), (Ok(()), 1));
    run
}

/// The event of a timer that fires `late` seconds after its time.
pub(super) fn fired(timer: &Scheduled, late: u64) -> Event {
    Event { timestamp: timer.at + late * SECOND, ..event(&timer.subject, timer.json()) }
}

/// The only timer that a run has set.
#[track_caller]
pub(super) fn timer<'a>(run: &'a Run, subject: &str) -> &'a Scheduled {
    let [timer] = run.timers.as_slice() else { panic!("one timer, not {:?}", run.timers) };
    assert_eq!(timer.subject, subject);
    timer
}

/// Writes into the record as another plugin would.
pub(super) fn change(host: &mut Host, change: impl FnOnce(&mut Value)) {
    let mut record = record(host);
    change(&mut record);
    host.set_value("derivation/plan-1", "record", &record);
}

/// Ends the open derivation as dependency-analyzer would.
pub(super) fn complete(host: &mut Host) {
    change(host, |record| record["status"] = "completed".into());
}

pub(super) fn record(host: &Host) -> Value {
    host.value("derivation/plan-1", "record").unwrap_or(Value::Null)
}

pub(super) fn metadata<'a>(run: &'a Run, key: &str) -> &'a str {
    run.jobs[0].job.metadata.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
}
