//! What is known of the deliberations over a task, cell `deliberation/<task_id>`: what `GetDeliberationResult` answers, as that
//! message. A deliberation of a call or an event and the collector both keep it so.

use cofferdam_sdk::state::{self, StateError};
use fleet_proto::orchestrator::v1::GetDeliberationResultResponse;
use prost::Message;

/// The key of the record in the task's cell.
pub(crate) const RESULT: &str = "result";

/// Of the event's or call's own cell.
pub(crate) fn load() -> Result<Option<GetDeliberationResultResponse>, StateError> {
    let Some(bytes) = state::get(RESULT)? else { return Ok(None) };
    GetDeliberationResultResponse::decode(bytes.as_slice())
        .map(Some)
        .map_err(|error| StateError::Unreadable { key: RESULT.into(), reason: error.to_string() })
}

pub(crate) fn save(record: &GetDeliberationResultResponse) -> Result<(), StateError> {
    state::put(RESULT, record.encode_to_vec())
}

/// Which deliberation the record is of.
pub(crate) fn execution(record: &GetDeliberationResultResponse) -> &str {
    record.metadata.as_ref().map_or("", |metadata| &metadata.execution_id)
}
