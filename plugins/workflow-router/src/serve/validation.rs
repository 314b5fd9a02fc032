//! `RequestValidation`: what `agent.work.completed` does, answered instead of told. What the machine says is in the answer; an
//! error is only what names no task or no role.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    fleet::{Artifacts, Cause, Timestamp},
    service::{Call, Status},
};
use fleet_proto::workflow::v1::{RequestValidationRequest, RequestValidationResponse, WorkResult};
use serde_json::{Map, Value};

use crate::{
    action::{self, Outcome},
    feedback,
    machine::Machine,
    settings,
    task::{Act, Task},
};

pub(super) fn request(
    call: &Call,
    request: &RequestValidationRequest,
) -> Result<RequestValidationResponse, Status> {
    let mut task = super::task(&request.task_id)?;
    let machine = settings::machine()?;
    let role = super::role(&machine, &request.role)?;
    let Some(action) = machine.action(&request.action) else {
        let why = format!("the action {:?} is none of the workflow's", request.action);
        return Ok(answer(&machine, &task, "invalid_action", why));
    };
    let result = request.result.as_ref();
    let artifacts = result.and_then(handed_in);
    let feedback = result.map(|result| feedback::kept(&result.feedback));
    let act = Act {
        action,
        role,
        agent: Some(request.agent_id.trim()).filter(|agent| !agent.is_empty()),
        feedback: feedback.as_deref().filter(|feedback| !feedback.is_empty()),
        artifacts: artifacts.as_ref(),
        at: Some(Timestamp::from_nanos(call.timestamp)),
    };
    let (status, message) = match action::take(&mut task, &machine, &act)? {
        Outcome::Accepted => ("accepted", format!("{action} by {role}")),
        Outcome::Violation => ("rbac_violation", format!("{role} may not do {action}")),
        Outcome::Rejected(why) => ("rejected", why),
        Outcome::NotNow(why) => ("invalid_action", why),
    };
    let answer = answer(&machine, &task, status, message);
    if status == "accepted" {
        task.save(&machine, &Cause::of_call(call))?;
    }
    Ok(answer)
}

/// An empty map is none: the wire does not tell them apart.
fn handed_in(result: &WorkResult) -> Option<Artifacts> {
    if result.artifacts.is_empty() {
        return None;
    }
    let texts: BTreeMap<_, _> = result.artifacts.iter().collect();
    let object: Map<String, Value> =
        texts.into_iter().map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect();
    let mut artifacts = Artifacts::read(&object);
    let reasoning = Some(result.reasoning.trim()).filter(|reasoning| !reasoning.is_empty());
    artifacts.implementation_summary =
        artifacts.implementation_summary.or_else(|| reasoning.map(str::to_owned));
    Some(artifacts)
}

fn answer(machine: &Machine, task: &Task, status: &str, message: String) -> RequestValidationResponse {
    let duty = machine.duty(&task.state);
    RequestValidationResponse {
        status: status.into(),
        message,
        current_state: task.state.clone(),
        next_role: duty.map(|duty| duty.role.clone()).unwrap_or_default(),
        next_action: duty.map(|duty| duty.action.clone()).unwrap_or_default(),
        workflow_completed: task.is_over(machine),
    }
}
