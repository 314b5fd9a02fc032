//! `fleet.orchestrator.v1.OrchestratorService`.

mod asking;
mod councils;
mod status;

use cofferdam_sdk::service::{self, Call, Status};
use fleet_proto::orchestrator::v1::{
    CreateCouncilRequest, DeleteCouncilRequest, DeliberateRequest, GetDeliberationResultRequest,
    GetStatusRequest, ListCouncilsRequest, OrchestrateRequest,
};

use crate::record;

/// One call of any of the plugin's methods.
pub(crate) fn serve(call: Call) -> Result<Vec<u8>, Status> {
    match call.name() {
        "Deliberate" => service::answer(&asking::deliberate(&call, call.read::<DeliberateRequest>()?)?),
        "Orchestrate" => service::answer(&asking::orchestrate(&call, call.read::<OrchestrateRequest>()?)?),
        "GetDeliberationResult" => {
            let request: GetDeliberationResultRequest = call.read()?;
            let task_id = given("task_id", &request.task_id)?;
            let record = record::load()?.ok_or_else(|| {
                Status::not_found(format!("nothing is known of a deliberation over the task {task_id:?}; what ended is told of for an hour"))
            })?;
            service::answer(&record)
        }
        "CreateCouncil" => service::answer(&councils::create(&call, call.read::<CreateCouncilRequest>()?)?),
        "ListCouncils" => service::answer(&councils::list(&call.read::<ListCouncilsRequest>()?)?),
        "DeleteCouncil" => service::answer(&councils::delete(&call.read::<DeleteCouncilRequest>()?)?),
        "GetStatus" => service::answer(&status::get(&call, &call.read::<GetStatusRequest>()?)?),
        _ => Err(Status::unimplemented(&call)),
    }
}

/// What a request has to have, without white space around it.
fn given<'a>(name: &str, value: &'a str) -> Result<&'a str, Status> {
    let value = value.trim();
    if value.is_empty() {
        Err(Status::invalid_argument(format!("{name} is empty; name it")))
    } else {
        Ok(value)
    }
}

/// A number that is none below zero.
fn number(name: &str, value: i32) -> Result<u32, Status> {
    u32::try_from(value)
        .map_err(|_| Status::invalid_argument(format!("{name} is {value}; it can't be below 0")))
}
