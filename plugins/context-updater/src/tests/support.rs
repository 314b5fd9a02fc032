//! A host with the plugin's own manifest, and a Context that takes what it is told.

use std::{cell::Cell, rc::Rc};

use cofferdam_sdk::{
    Event,
    rpc::Status,
    testing::{Host, Run, event},
};
use fleet_proto::context::v1::{ContextChange, UpdateContextRequest, UpdateContextResponse};
use prost::Message as _;
use serde_json::{Value, json};

pub(super) const DECIDED: &str = "orchestration.deliberation.completed";
pub(super) const APPROVED: &str = "planning.decision.approved";
pub(super) const REJECTED: &str = "planning.decision.rejected";
pub(super) const UPDATED: &str = "context.updated";
pub(super) const UPDATE: &str = "fleet.context.v1.ContextService/UpdateContext";

pub(super) fn bare_host() -> Host {
    Host::from_manifest(include_str!("../../plugin.toml"))
}

/// Context counts its versions up.
pub(super) fn host() -> Host {
    host_warning(&[])
}

/// The same; each answer has these warnings.
pub(super) fn host_warning(warnings: &[&str]) -> Host {
    let version = Rc::new(Cell::new(0));
    let warnings: Vec<String> = warnings.iter().map(|warning| (*warning).to_owned()).collect();
    bare_host().answers("context", UPDATE, move |_: UpdateContextRequest| {
        version.set(version.get() + 1);
        let hash = format!("hash-{}", version.get());
        Ok::<_, Status>(UpdateContextResponse { version: version.get(), hash, warnings: warnings.clone() })
    })
}

pub(super) fn run(host: &mut Host, subject: &str, data: impl ToString) -> Run {
    take(host, event(subject, data))
}

pub(super) fn take(host: &mut Host, event: Event) -> Run {
    host.run(crate::handle, event)
}

/// Two decisions of a council.
pub(super) fn decided() -> Value {
    json!({
        "story_id": "S", "task_id": "T", "deliberation_id": "dlb-1", "status": "completed", "role": "DEV",
        "winner_id": "agent-dev-002", "timestamp": "2026-01-01T00:00:00Z",
        "decisions": [
            {"id": "DEC-T", "type": "TECHNICAL", "rationale": "One table.", "affected_subtask": "T"},
            {"id": "DEC-U", "type": "PROCESS", "rationale": "Ship daily."},
        ],
    })
}

/// What Context was asked in this run.
pub(super) fn asked(run: &Run) -> Vec<UpdateContextRequest> {
    let read = |call: &cofferdam_sdk::testing::Call| {
        assert_eq!((call.upstream.as_str(), call.method.as_str()), ("context", UPDATE));
        UpdateContextRequest::decode(call.request.as_slice()).unwrap()
    };
    run.calls.iter().map(read).collect()
}

/// The only request of a run.
#[track_caller]
pub(super) fn one(run: &Run) -> UpdateContextRequest {
    let [request] = asked(run).try_into().unwrap_or_else(|all| panic!("one, not {all:?}"));
    request
}

pub(super) fn payload(change: &ContextChange) -> Value {
    serde_json::from_str(&change.payload).unwrap()
}

/// The payload of the only `context.updated` of a run.
#[track_caller]
pub(super) fn updated(run: &Run) -> Value {
    assert_eq!(run.result, Ok(()));
    let [told] = run.on(UPDATED).try_into().unwrap_or_else(|all| panic!("one, not {all:?}"));
    told["payload"].clone()
}
