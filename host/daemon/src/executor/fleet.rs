//! The fleet's own executor, `fleet.ray_executor.v1`: it accepts a job and answers later, as events.

use bytes::Bytes;
use cofferdam_sandbox::{JobPhase, JobStatus};
use fleet_proto::ray_executor::v1::{
    Agent, ExecuteDeliberationRequest, ExecuteDeliberationResponse, TaskConstraints,
};
use prost::Message as _;
use tonic::Code;

use super::{QueuedJob, status, worker::Worked};
use crate::{
    capabilities::{Outgoing, Services},
    config::ExecutorConfig,
    observe::text::excerpt,
};

const METHOD: &str = "fleet.ray_executor.v1.RayExecutorService/ExecuteDeliberation";
/// Of the executor's own words, in bytes.
const MAX_TOLD: usize = 2 << 10;

pub(super) async fn work(
    services: &Services,
    upstream: &str,
    config: &ExecutorConfig,
    queued: &QueuedJob,
    trace: &str,
) -> Worked {
    let request = Bytes::from(request(config, queued).encode_to_vec());
    let answer = services
        .upstreams
        .call(Outgoing {
            upstream,
            method: METHOD,
            request,
            timeout: None,
            metadata: &[],
            idempotency_key: &queued.id,
            traceparent: trace,
            fence: None,
        })
        .await;
    let bytes = match answer {
        Ok(bytes) => bytes,
        // The executor may have taken the job all the same, and its answer got lost: the next try says so by its key.
        Err(status) if is_transient(status.code()) => return Worked::Later(told(upstream, &status)),
        Err(status) => return Worked::Failed { error: told(upstream, &status), kind: "refused" },
    };
    match ExecuteDeliberationResponse::decode(bytes) {
        Ok(accepted) => {
            tracing::info!(
                job = queued.id,
                task_id = queued.job.task_id,
                deliberation_id = accepted.deliberation_id,
                status = accepted.status,
                "the executor accepted the job"
            );
            let running = JobStatus {
                phase: JobPhase::Running,
                execution_id: Some(accepted.deliberation_id),
                error: None,
            };
            let effects = vec![status::message(&queued.id, &running)];
            Worked::Ended { effects, outcome: "accepted" }
        }
        Err(error) => {
            Worked::Failed { error: format!("{upstream}'s answer can't be read: {error}"), kind: "protocol" }
        }
    }
}

fn request(config: &ExecutorConfig, queued: &QueuedJob) -> ExecuteDeliberationRequest {
    let job = &queued.job;
    let model = job.model.clone().unwrap_or_else(|| config.model.clone());
    let agents = job.agents.iter().map(|agent| Agent {
        id: agent.id.clone(),
        role: agent.role.clone(),
        model: if agent.model.is_empty() { model.clone() } else { agent.model.clone() },
        prompt_template: agent.prompt_template.clone(),
    });
    ExecuteDeliberationRequest {
        task_id: job.task_id.clone(),
        task_description: job.prompt.clone(),
        role: job.role.clone(),
        constraints: Some(TaskConstraints {
            story_id: job.story_id.clone().unwrap_or_default(),
            plan_id: job.plan_id.clone().unwrap_or_default(),
            timeout_seconds: job.timeout_seconds as i32,
            max_retries: job.max_retries as i32,
            metadata: job.metadata.iter().cloned().collect(),
        }),
        agents: agents.collect(),
        vllm_url: config.vllm_url.reveal().to_owned(),
        vllm_model: model.clone(),
    }
}

fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
    )
}

fn told(upstream: &str, status: &tonic::Status) -> String {
    let unknown = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => " (whether it took the job is unknown)",
        _ => "",
    };
    format!("{upstream} answered {:?}: {}{unknown}", status.code(), excerpt(status.message(), MAX_TOLD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_whose_outcome_is_unknown_is_tried_again_and_told_as_such() {
        assert!(is_transient(Code::DeadlineExceeded) && !is_transient(Code::InvalidArgument));
        let late = told("ray", &tonic::Status::deadline_exceeded("no answer within 5s"));
        assert_eq!(
            late,
            "ray answered DeadlineExceeded: no answer within 5s (whether it took the job is unknown)"
        );
        let refused = told("ray", &tonic::Status::invalid_argument("no such role"));
        assert_eq!(refused, "ray answered InvalidArgument: no such role");
    }
}
