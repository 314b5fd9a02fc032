//! The call to Context, and what its refusals mean. One that is away, or fails inside, is waited for; what it will never take becomes
//! a dead letter.

use cofferdam_sdk::{
    Failure,
    rpc::{self, Code, Options, Status},
    warn,
};
use fleet_proto::context::v1::{UpdateContextRequest, UpdateContextResponse};

use crate::lost;

const UPSTREAM: &str = "context";
const UPDATE: &str = "fleet.context.v1.ContextService/UpdateContext";

pub(crate) fn update(request: &UpdateContextRequest) -> Result<UpdateContextResponse, Failure> {
    let mut answer = rpc::unary(UPSTREAM, UPDATE, request);
    if let Err(status) = &answer
        && status.is_outcome_unknown()
    {
        // The same changes twice come to the same, and the key is the same.
        warn!("an earlier call was cut off, making it again"; story_id = request.story_id);
        let again = Options { repeat: true, ..Options::default() };
        answer = rpc::unary_with(UPSTREAM, UPDATE, request, &again);
    }
    answer.map_err(failure)
}

fn failure(status: Status) -> Failure {
    if status.is_transient() {
        return Failure::retry(format!("Context can't take it now: {status}"));
    }
    let told = match status.code {
        // The host's own word, such as a grant that is missing, says what to do.
        _ if status.local => status.to_string(),
        Code::Unimplemented => format!(
            "this Context takes no updates ({status}): run one that serves {UPDATE}, or take context-updater out of the \
             configuration; then `cofferdam dlq redrive` brings this back"
        ),
        _ => format!("Context refused it: {status}"),
    };
    lost("refused", Failure::reject(told))
}
