//! A Ray Executor in the test's own process, for what `fleet ray` does not do: it keeps every request, and answers each
//! as the test says.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use async_nats::jetstream::Context;
use fleet_proto::ray_executor::v1::{
    ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest, ExecuteDeliberationResponse,
    GetActiveJobsRequest, GetActiveJobsResponse, GetDeliberationStatusRequest, GetDeliberationStatusResponse,
    GetStatusRequest, GetStatusResponse,
    ray_executor_service_server::{RayExecutorService, RayExecutorServiceServer},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, async_trait, metadata::MetadataMap};

use crate::{serve::serve, wait::wait_for, world::World};

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Accepted; the agent answers with this text.
    Text(String),
    /// Accepted; these messages are published, whatever they are: subject and body.
    Messages(Vec<(String, Value)>),
    /// Accepted; whoever asks is told this, one after another, and then always the last. Nothing is published.
    Told(Vec<GetDeliberationStatusResponse>),
    /// Not accepted.
    Refuse(Status),
}

pub type Script = Arc<dyn Fn(&ExecuteDeliberationRequest) -> Reply + Send + Sync>;

/// A request, with its metadata.
#[derive(Debug, Clone)]
pub struct Asked {
    pub request: ExecuteDeliberationRequest,
    pub metadata: MetadataMap,
}

/// Ends on drop.
pub struct Executor {
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

struct Service {
    script: Script,
    jetstream: Context,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Still to be told, by deliberation.
    told: Mutex<HashMap<String, VecDeque<GetDeliberationStatusResponse>>>,
}

impl Executor {
    pub async fn start(
        world: &World,
        script: impl Fn(&ExecuteDeliberationRequest) -> Reply + Send + Sync + 'static,
    ) -> Executor {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let service = Service {
            script: Arc::new(script),
            jetstream: world.jetstream.clone(),
            asked: asked.clone(),
            told: Mutex::default(),
        };
        let (address, server) = serve(RayExecutorServiceServer::new(service)).await;
        Executor { address, asked, server }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no poison").clone()
    }

    pub async fn wait_asked(&self, times: usize) -> Vec<Asked> {
        wait_for(&format!("{times} requests to the executor"), async || {
            Some(self.asked()).filter(|asked| asked.len() >= times)
        })
        .await
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[async_trait]
impl RayExecutorService for Service {
    async fn execute_deliberation(
        &self,
        request: Request<ExecuteDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        let metadata = request.metadata().clone();
        let request = request.into_inner();
        let number = {
            let mut asked = self.asked.lock().expect("no poison");
            asked.push(Asked { request: request.clone(), metadata });
            asked.len()
        };
        let deliberation_id = format!("deliberation-{number}");
        let messages = match (self.script)(&request) {
            Reply::Refuse(status) => return Err(status),
            Reply::Text(text) => {
                let message = completed(&request, &deliberation_id, &text);
                vec![("agent.response.completed".to_owned(), message)]
            }
            Reply::Messages(messages) => messages,
            Reply::Told(statuses) => {
                self.told.lock().expect("no poison").insert(deliberation_id.clone(), statuses.into());
                Vec::new()
            }
        };
        let jetstream = self.jetstream.clone();
        tokio::spawn(async move {
            for (subject, body) in messages {
                let sent = jetstream.publish(subject, body.to_string().into()).await.expect("a publish");
                sent.await.expect("a stream for the answer");
            }
        });
        Ok(Response::new(ExecuteDeliberationResponse {
            task_id: request.task_id,
            deliberation_id,
            status: "accepted".to_owned(),
            message: String::new(),
        }))
    }

    async fn execute_backlog_review_deliberation(
        &self,
        _: Request<ExecuteBacklogReviewDeliberationRequest>,
    ) -> Result<Response<ExecuteDeliberationResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn get_deliberation_status(
        &self,
        request: Request<GetDeliberationStatusRequest>,
    ) -> Result<Response<GetDeliberationStatusResponse>, Status> {
        let mut told = self.told.lock().expect("no poison");
        let Some(statuses) = told.get_mut(&request.into_inner().deliberation_id) else {
            return Err(Status::unimplemented("not part of these tests"));
        };
        let next = if statuses.len() > 1 { statuses.pop_front() } else { statuses.front().cloned() };
        Ok(Response::new(next.expect("something to tell")))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn get_active_jobs(
        &self,
        _: Request<GetActiveJobsRequest>,
    ) -> Result<Response<GetActiveJobsResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}

/// A worker's answer: bare, with the constraints that came with the request.
fn completed(request: &ExecuteDeliberationRequest, deliberation_id: &str, text: &str) -> Value {
    let constraints = request.constraints.clone().unwrap_or_default();
    let agent = request.agents.first().cloned().unwrap_or_default();
    json!({
        "task_id": request.task_id,
        "agent_id": agent.id,
        "role": agent.role,
        "status": "completed",
        "deliberation_id": deliberation_id,
        "duration_ms": 12,
        "timestamp": "2026-01-02T03:04:05+00:00Z",
        "proposal": { "content": text, "author_id": agent.id },
        "num_agents": 1,
        "constraints": {
            "story_id": constraints.story_id,
            "plan_id": constraints.plan_id,
            "metadata": constraints.metadata,
        },
    })
}
