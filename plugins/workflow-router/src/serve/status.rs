//! `GetWorkflowState`: where a task stands, and how it came there.

use cofferdam_sdk::service::Status;
use fleet_proto::workflow::v1::{GetWorkflowStateRequest, StateTransitionDto, WorkflowStateResponse};

use crate::{settings, task::Hop};

pub(super) fn of(request: &GetWorkflowStateRequest) -> Result<WorkflowStateResponse, Status> {
    let task = super::task(&request.task_id)?;
    let machine = settings::machine()?;
    let duty = machine.duty(&task.state);
    Ok(WorkflowStateResponse {
        role_in_charge: duty.map(|duty| duty.role.clone()).unwrap_or_default(),
        required_action: duty.map(|duty| duty.action.clone()).unwrap_or_default(),
        history: task.history.into_iter().map(transition).collect(),
        feedback: task.feedback.unwrap_or_default(),
        updated_at: task.updated_at.unix_seconds(),
        retry_count: i32::try_from(task.retry_count).unwrap_or(i32::MAX),
        task_id: task.task_id,
        current_state: task.state,
    })
}

fn transition(hop: Hop) -> StateTransitionDto {
    StateTransitionDto {
        from_state: hop.from,
        to_state: hop.to,
        action: hop.action,
        actor_role: hop.actor,
        timestamp: hop.at.unix_seconds(),
        feedback: hop.feedback.unwrap_or_default(),
    }
}
