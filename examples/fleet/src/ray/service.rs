//! The Ray Executor's gRPC service.

use std::time::Duration;

use fleet_proto::ray_executor::v1::{
    Agent, DeliberationResult, ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest,
    ExecuteDeliberationResponse, GetActiveJobsRequest, GetActiveJobsResponse, GetDeliberationStatusRequest,
    GetDeliberationStatusResponse, GetStatusRequest, GetStatusResponse, JobInfo, RayExecutorStats,
    ray_executor_service_server::RayExecutorService,
};
use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, async_trait};

use super::{
    book::{Deliberation, Entry, Opened, Standing},
    worker::Worker,
};
use crate::{cli::Refusal, once};

/// What zero means, by the contract.
const TIMEOUT_SECONDS: i32 = 300;
const MAX_RETRIES: i32 = 3;

pub(super) struct Service {
    pub(super) worker: Worker,
    pub(super) refuse: Option<Refusal>,
}

#[async_trait]
impl RayExecutorService for Service {
    async fn execute_deliberation(
        &self,
        request: Request<ExecuteDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        let key = key(&request)?;
        let request = request.into_inner();
        let constraints = request.constraints.unwrap_or_default();
        self.execute(
            Deliberation {
                id: String::new(),
                task_id: request.task_id,
                role: request.role,
                model: request.vllm_model,
                story_id: constraints.story_id,
                plan_id: constraints.plan_id,
                timeout_seconds: constraints.timeout_seconds,
                max_retries: constraints.max_retries,
                metadata: constraints.metadata.into_iter().collect(),
                agents: agents(request.agents),
            },
            key,
        )
    }

    async fn execute_backlog_review_deliberation(
        &self,
        request: Request<ExecuteBacklogReviewDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        let key = key(&request)?;
        let request = request.into_inner();
        if !is_ceremony(&request.task_id) {
            return Err(Status::invalid_argument(format!(
                "task_id {:?} is not of the form ceremony-..:story-..:role-..",
                request.task_id
            )));
        }
        let constraints = request.constraints.unwrap_or_default();
        self.execute(
            Deliberation {
                id: String::new(),
                task_id: request.task_id,
                role: request.role,
                model: request.vllm_model,
                story_id: constraints.story_id,
                plan_id: String::new(),
                timeout_seconds: constraints.timeout_seconds,
                max_retries: constraints.max_retries,
                metadata: constraints.metadata.into_iter().collect(),
                agents: agents(request.agents),
            },
            key,
        )
    }

    async fn get_deliberation_status(
        &self,
        request: Request<GetDeliberationStatusRequest>,
    ) -> Result<Response<GetDeliberationStatusResponse>, Status> {
        let answer = match self.worker.book.find(&request.into_inner().deliberation_id) {
            None => GetDeliberationStatusResponse { status: "not_found".to_owned(), ..Default::default() },
            Some(entry) => standing(entry),
        };
        Ok(Response::new(answer))
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse {
            status: "healthy".to_owned(),
            uptime_seconds: self.worker.book.uptime_seconds(),
            stats: request.into_inner().include_stats.then(|| stats(&self.worker.book.all())),
        }))
    }

    async fn get_active_jobs(
        &self,
        _: Request<GetActiveJobsRequest>,
    ) -> Result<Response<GetActiveJobsResponse>, Status> {
        let running = self.worker.book.all().into_iter().filter(|entry| entry.standing == Standing::Running);
        Ok(Response::new(GetActiveJobsResponse { jobs: running.map(job).collect() }))
    }
}

impl Service {
    fn execute(
        &self,
        mut deliberation: Deliberation,
        key: Option<(String, Vec<u8>)>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        if deliberation.task_id.is_empty() {
            return Err(Status::invalid_argument("task_id is empty; name the task"));
        }
        if deliberation.agents.is_empty() {
            return Err(Status::invalid_argument("no agents; name at least one"));
        }
        if let Some(refusal) = self.refuse {
            return Err(refused(refusal));
        }
        if deliberation.timeout_seconds == 0 {
            deliberation.timeout_seconds = TIMEOUT_SECONDS;
        }
        if deliberation.max_retries == 0 {
            deliberation.max_retries = MAX_RETRIES;
        }
        let task_id = deliberation.task_id.clone();
        let deliberation_id = match self.worker.book.open(deliberation, key) {
            Opened::New(deliberation) => {
                tracing::info!(
                    task_id,
                    id = deliberation.id,
                    agents = deliberation.agents.len(),
                    "deliberation taken"
                );
                self.worker.start(deliberation.clone());
                deliberation.id
            }
            Opened::Again(id) => {
                tracing::info!(task_id, id, "a repeated call gets its first answer");
                id
            }
            Opened::Misused => {
                return Err(Status::invalid_argument(
                    "the idempotency key belongs to another request; use a new key for a new request",
                ));
            }
        };
        Ok(Response::new(ExecuteDeliberationResponse {
            message: format!("{deliberation_id} was submitted"),
            task_id,
            deliberation_id,
            status: "submitted".to_owned(),
        }))
    }
}

/// The idempotency key and the request's digest.
fn key<Q: Message>(request: &Request<Q>) -> Result<Option<(String, Vec<u8>)>, Status> {
    let key = once::key(request)?;
    Ok(key.map(|key| (key, Sha256::digest(request.get_ref().encode_to_vec()).to_vec())))
}

fn agents(agents: Vec<Agent>) -> Vec<(String, String)> {
    agents.into_iter().map(|agent| (agent.id, agent.role)).collect()
}

/// `ceremony-..:story-..:role-..`
fn is_ceremony(task_id: &str) -> bool {
    let parts: Vec<&str> = task_id.split(':').collect();
    let starts = ["ceremony-", "story-", "role-"];
    parts.len() == starts.len()
        && parts
            .iter()
            .zip(starts)
            .all(|(part, start)| part.strip_prefix(start).is_some_and(|rest| !rest.is_empty()))
}

fn refused(refusal: Refusal) -> Status {
    let message = "refused on demand (--refuse)";
    match refusal {
        Refusal::InvalidArgument => Status::invalid_argument(message),
        Refusal::PermissionDenied => Status::permission_denied(message),
        Refusal::ResourceExhausted => Status::resource_exhausted(message),
        Refusal::FailedPrecondition => Status::failed_precondition(message),
        Refusal::Unavailable => Status::unavailable(message),
    }
}

fn standing(entry: Entry) -> GetDeliberationStatusResponse {
    match entry.standing {
        Standing::Running => {
            GetDeliberationStatusResponse { status: "running".to_owned(), ..Default::default() }
        }
        Standing::Failed { error } => GetDeliberationStatusResponse {
            status: "failed".to_owned(),
            error_message: error,
            ..Default::default()
        },
        Standing::Completed { agent_id, proposal } => GetDeliberationStatusResponse {
            status: "completed".to_owned(),
            result: Some(DeliberationResult {
                agent_id,
                proposal,
                reasoning: String::new(),
                score: 1.0,
                metadata: entry.deliberation.metadata.into_iter().collect(),
            }),
            error_message: String::new(),
        },
    }
}

fn stats(entries: &[Entry]) -> RayExecutorStats {
    let count = |wanted: fn(&Standing) -> bool| {
        i64::try_from(entries.iter().filter(|entry| wanted(&entry.standing)).count()).unwrap_or(i64::MAX)
    };
    let ended: Vec<f32> = entries
        .iter()
        .filter(|entry| entry.standing != Standing::Running)
        .map(|entry| Duration::from_millis(entry.duration_ms()).as_secs_f32() * 1000.0)
        .collect();
    let of = u16::try_from(ended.len()).map_or(f32::from(u16::MAX), f32::from);
    RayExecutorStats {
        total_deliberations: count(|_| true),
        active_deliberations: count(|standing| *standing == Standing::Running),
        completed_deliberations: count(|standing| matches!(standing, Standing::Completed { .. })),
        failed_deliberations: count(|standing| matches!(standing, Standing::Failed { .. })),
        average_execution_time_ms: if ended.is_empty() { 0.0 } else { ended.iter().sum::<f32>() / of },
    }
}

fn job(entry: Entry) -> JobInfo {
    let runtime = humantime::format_duration(Duration::from_millis(entry.duration_ms())).to_string();
    let deliberation = entry.deliberation;
    JobInfo {
        job_id: deliberation.id.clone(),
        name: format!("deliberation {}", deliberation.task_id),
        status: "RUNNING".to_owned(),
        submission_id: deliberation.id,
        role: deliberation.role,
        task_id: deliberation.task_id,
        start_time: Some(entry.since.into()),
        end_time: None,
        runtime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceremony_names_its_story_and_role() {
        for (task_id, expected) in [
            ("ceremony-1:story-2:role-QA", true),
            ("ceremony-1:story-2", false),
            ("ceremony-:story-2:role-QA", false),
            ("story-2:ceremony-1:role-QA", false),
            ("derive-plan", false),
            ("", false),
        ] {
            assert_eq!(is_ceremony(task_id), expected, "{task_id:?}");
        }
    }
}
