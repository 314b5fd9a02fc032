//! What a job's end looks like to the fleet: `agent.response.completed` and `agent.response.failed`, as its workers
//! write them.

use std::time::SystemTime;

use bytes::Bytes;
use cofferdam_bus::Message;
use serde_json::{Map, Value, json};

use super::QueuedJob;
use crate::observe::trace::hex;

const PRODUCER: &str = "cofferdam-executor";
const COMPLETED: &str = "agent.response.completed";
pub(super) const FAILED: &str = "agent.response.failed";
/// The key of a job's metadata that names what its answers correlate with.
const CORRELATION: &str = "correlation_id";

/// One answer of one agent.
pub(super) struct Proposal<'a> {
    pub(super) agent: &'a str,
    pub(super) role: &'a str,
    pub(super) model: &'a str,
    pub(super) content: &'a str,
}

pub(super) fn completed(queued: &QueuedJob, proposal: &Proposal<'_>, envelope: &str) -> Message {
    let job = &queued.job;
    let payload = json!({
        "task_id": job.task_id,
        "agent_id": proposal.agent,
        "role": proposal.role,
        "status": "completed",
        "success": true,
        "duration_ms": 0,
        "timestamp": now(),
        "num_agents": job.agents.len(),
        "proposal": {
            "content": proposal.content,
            "author_id": proposal.agent,
            "author_role": proposal.role,
            "model": proposal.model,
            "temperature": 0.0,
            "tokens": proposal.content.split_whitespace().count(),
        },
        "operations": [],
        "artifacts": {},
        "audit_trail": [],
        "constraints": constraints(queued),
        "deliberation_id": queued.id,
    });
    message(COMPLETED, queued, proposal.agent, payload, envelope)
}

/// One failure for each agent of the job.
pub(super) fn failed(queued: &QueuedJob, error: &str, kind: &str, envelope: &str) -> Vec<Message> {
    let failure = |agent: &cofferdam_sandbox::Agent| {
        let payload = json!({
            "task_id": queued.job.task_id,
            "agent_id": agent.id,
            "role": agent.role,
            "error": error,
            "error_type": kind,
            "num_agents": queued.job.agents.len(),
            "duration_ms": 0,
            "timestamp": now(),
            "metadata": { "task_id": queued.job.task_id },
            "constraints": constraints(queued),
            "deliberation_id": queued.id,
        });
        message(FAILED, queued, &agent.id, payload, envelope)
    };
    queued.job.agents.iter().map(failure).collect()
}

/// The same with no more in it than what tells whose failure it is.
pub(super) fn failed_briefly(queued: &QueuedJob, error: &str, kind: &str, envelope: &str) -> Vec<Message> {
    let failure = |agent: &cofferdam_sandbox::Agent| {
        let payload = json!({
            "task_id": queued.job.task_id,
            "agent_id": agent.id,
            "error": error,
            "error_type": kind,
            "timestamp": now(),
            "deliberation_id": queued.id,
        });
        message(FAILED, queued, &agent.id, payload, envelope)
    };
    queued.job.agents.iter().map(failure).collect()
}

fn constraints(queued: &QueuedJob) -> Value {
    let job = &queued.job;
    let mut metadata: Map<String, Value> =
        job.metadata.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
    metadata.entry("task_id").or_insert_with(|| json!(job.task_id));
    metadata.insert("num_agents".into(), json!(job.agents.len()));
    if let Some(story) = &job.story_id {
        metadata.entry("story_id").or_insert_with(|| json!(story));
    }
    json!({ "story_id": job.story_id, "plan_id": job.plan_id, "metadata": metadata })
}

fn message(event_type: &str, queued: &QueuedJob, agent: &str, payload: Value, envelope: &str) -> Message {
    let key = hex(&<sha2::Sha256 as sha2::Digest>::digest(format!(
        "{event_type}:{}:{}:{agent}",
        queued.job.task_id, queued.id
    )));
    let wrapped = json!({
        "event_type": event_type,
        "idempotency_key": key,
        "correlation_id": correlation(queued),
        "timestamp": payload["timestamp"],
        "producer": PRODUCER,
        "payload": payload,
    });
    let body = match envelope {
        "bare" => payload,
        "envelope" => wrapped,
        _ => mirror(wrapped, payload),
    };
    Message {
        subject: event_type.to_owned(),
        headers: vec![("Cofferdam-Plugin".into(), PRODUCER.into())],
        data: Bytes::from(body.to_string()),
    }
}

/// As the submitting plugin says; else the job itself.
fn correlation(queued: &QueuedJob) -> &str {
    let named = queued.job.metadata.iter().find(|(key, value)| key == CORRELATION && !value.is_empty());
    named.map_or(&queued.id, |(_, value)| value)
}

/// The envelope with the payload's keys beside it, for both kinds of reader.
fn mirror(wrapped: Value, payload: Value) -> Value {
    match (wrapped, payload) {
        (Value::Object(wrapped), Value::Object(mut both)) => {
            both.extend(wrapped);
            Value::Object(both)
        }
        (wrapped, _) => wrapped,
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::testing;

    #[test]
    fn answers_correlate_with_the_submitting_event_if_it_is_named() {
        let mut queued = testing::job(&["a"]);
        for (value, correlation) in [(None, "o-1-j0"), (Some(""), "o-1-j0"), (Some("c-7"), "c-7")] {
            queued.job.metadata = value.map(|v| (CORRELATION.into(), v.into())).into_iter().collect();
            let proposal = Proposal { agent: "a", role: "DEV", model: "m", content: "TITLE: A" };
            let failures = failed(&queued, "e", "refused", "mirror");
            let briefly = failed_briefly(&queued, "e", "refused", "mirror");
            for message in failures.iter().chain(&briefly).chain([&completed(&queued, &proposal, "mirror")]) {
                let body: Value = serde_json::from_slice(&message.data).unwrap();
                assert_eq!(body["correlation_id"], correlation, "{value:?} {}", message.subject);
            }
        }
    }
}
