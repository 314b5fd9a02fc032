//! The methods, each from its request to its answer, and what is told of a call.

use std::time::Instant;

use axum::middleware::Next;
use fleet_proto::ray_executor::v1::{
    ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest, ExecuteDeliberationResponse,
    GetActiveJobsRequest, GetActiveJobsResponse, GetDeliberationStatusRequest, GetDeliberationStatusResponse,
    GetStatusRequest, GetStatusResponse,
    ray_executor_service_server::{RayExecutorService, SERVICE_NAME},
};
use tonic::{Code, Request, Response, Status, async_trait};

use super::{Desk, request::Asked, tell};
use crate::{
    observe::metrics::Metrics,
    serve::{Incoming, status::over},
};

/// In whose name the calls are counted.
const COUNTED: &str = "executor";

/// A request over the limit comes to no method: here it is told and counted.
pub(super) async fn bounded(
    request: axum::extract::Request,
    next: Next,
    most: usize,
    metrics: &Metrics,
) -> axum::response::Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let answer = next.run(request).await;
    let ours = path.strip_prefix(SERVICE_NAME).is_some_and(|method| method.starts_with('/'));
    let status = Status::from_header_map(answer.headers()).filter(|_| ours);
    let Some(status) = status.and_then(|status| over(&status, most, "the executor's [executor.grpc]")) else {
        return answer;
    };
    metrics.served.with_label_values(&[COUNTED, &path, &(status.code() as i32).to_string()]).inc();
    tracing::info!(path, "a call was refused: {:?}: {}", status.code(), status.message());
    status.into_http()
}

#[async_trait]
impl RayExecutorService for Desk {
    async fn execute_deliberation(
        &self,
        request: Request<ExecuteDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        self.answer("ExecuteDeliberation", request, async |incoming, request| {
            self.execute("ExecuteDeliberation", &incoming, Asked::of(request)?).await
        })
        .await
    }

    async fn execute_backlog_review_deliberation(
        &self,
        request: Request<ExecuteBacklogReviewDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        self.answer("ExecuteBacklogReviewDeliberation", request, async |incoming, request| {
            self.execute("ExecuteBacklogReviewDeliberation", &incoming, Asked::of_review(request)?).await
        })
        .await
    }

    async fn get_deliberation_status(
        &self,
        request: Request<GetDeliberationStatusRequest>,
    ) -> Result<Response<GetDeliberationStatusResponse>, Status> {
        self.answer("GetDeliberationStatus", request, async |_, request| {
            tell::standing(self.bus(), &request.deliberation_id).await
        })
        .await
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.answer("GetStatus", request, async |_, request| {
            let status = if self.stop.is_cancelled() { "draining" } else { "healthy" };
            Ok(GetStatusResponse {
                status: status.to_owned(),
                uptime_seconds: i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX),
                stats: match request.include_stats {
                    true => Some(tell::statistics(self.bus()).await?),
                    false => None,
                },
            })
        })
        .await
    }

    async fn get_active_jobs(
        &self,
        request: Request<GetActiveJobsRequest>,
    ) -> Result<Response<GetActiveJobsResponse>, Status> {
        self.answer("GetActiveJobs", request, async |_, _| tell::active(self.bus()).await).await
    }
}

impl Desk {
    async fn execute(
        &self,
        method: &str,
        incoming: &Incoming,
        asked: Asked,
    ) -> Result<ExecuteDeliberationResponse, Status> {
        if self.stop.is_cancelled() {
            return Err(Status::unavailable(
                "the executor stops, and takes no more jobs; ask another, or this one once it is back",
            ));
        }
        let (task_id, agents) = (asked.job.task_id.clone(), asked.job.agents.len());
        let id = self.submit(&format!("{SERVICE_NAME}/{method}"), incoming, asked).await?;
        tracing::info!(job = id, task_id, agents, "a client submitted a job");
        let of = if agents == 1 { "one agent".to_owned() } else { format!("{agents} agents") };
        Ok(ExecuteDeliberationResponse {
            message: format!(
                "{id} was submitted, for {of}; its result comes as agent.response.completed or .failed"
            ),
            task_id,
            deliberation_id: id,
            status: "submitted".to_owned(),
        })
    }

    async fn answer<Q, A>(
        &self,
        method: &str,
        request: Request<Q>,
        call: impl AsyncFnOnce(Incoming, Q) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        let began = Instant::now();
        let (metadata, _, request) = request.into_parts();
        let answer = async {
            let incoming = Incoming::new(&metadata.into_headers(), began, self.config.grpc.timeout)?;
            let Ok(_room) = self.room.try_acquire() else {
                let most = self.config.grpc.max_calls;
                return Err(Status::unavailable(format!(
                    "the executor answers {most} calls already, its [executor.grpc] max-calls; call again, or another"
                )));
            };
            let deadline = incoming.deadline;
            match tokio::time::timeout_at(deadline.into(), call(incoming, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded(
                    "the bus did not answer in the call's time; repeat the call, with its idempotency key if it has one",
                )),
            }
        };
        let answer = Box::pin(answer).await;
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let (metrics, path) = (&self.services.metrics, format!("{SERVICE_NAME}/{method}"));
        metrics.served.with_label_values(&[COUNTED, &path, &(code as i32).to_string()]).inc();
        metrics.served_seconds.with_label_values(&[COUNTED, &path]).observe(began.elapsed().as_secs_f64());
        if let Err(status) = &answer {
            let ms = began.elapsed().as_millis() as u64;
            tracing::info!(
                method,
                code = code as i32,
                ms,
                "a call was refused: {code:?}: {}",
                status.message()
            );
        }
        answer.map(Response::new)
    }
}
