//! `fleet.workflow.v1.WorkflowOrchestrationService`: one file for each method, and here what they share.

mod claim;
mod pending;
mod stats;
mod status;
mod validation;

use cofferdam_sdk::service::{self, Call, Status};

use crate::{machine::Machine, task::Task};

/// One call of any of the methods that the manifest lists.
pub(crate) fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "GetWorkflowState" => service::answer(&status::of(&call.read()?)?),
        "RequestValidation" => service::answer(&validation::request(&call, &call.read()?)?),
        "ClaimTask" => service::answer(&claim::claim(&call, &call.read()?)?),
        "GetPendingTasks" => service::answer(&pending::list(&call.read()?)?),
        "GetStats" => service::answer(&stats::get(&call.read()?)?),
        _ => Err(Status::unimplemented(&call)),
    }
}

/// The task of the call's cell.
fn task(task_id: &str) -> Result<Task, Status> {
    given("task_id", task_id)?;
    Task::load()?.ok_or_else(|| Status::not_found(format!("no workflow is open for task {task_id:?}")))
}

fn given(field: &str, value: &str) -> Result<(), Status> {
    if value.trim().is_empty() {
        return Err(Status::invalid_argument(format!("{field} is empty; name one")));
    }
    Ok(())
}

/// As the machine calls the role.
fn role<'a>(machine: &'a Machine, name: &str) -> Result<&'a str, Status> {
    machine.role(name).ok_or_else(|| {
        let known: Vec<&str> = machine.roles().collect();
        Status::invalid_argument(format!(
            "the role {name:?} is none of the workflow's; it has {}",
            known.join(", ")
        ))
    })
}
