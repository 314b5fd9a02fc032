//! `[executor]`: who works the jobs that plugins and clients submit, and how.

mod endpoints;
mod read;
#[cfg(test)]
mod tests;
mod unused;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub(super) use read::executor;
pub use unused::unused;

use super::{GrpcConfig, Secret, Url};

#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    pub backend: Backend,
    /// For jobs that name none.
    pub model: String,
    /// Passed on to the fleet's executor; with the queue, the one endpoint where none is configured.
    pub vllm_url: Url,
    /// Jobs that one process works at a time.
    pub concurrency: u32,
    /// A job of whose worker nothing is heard for so long is another's. All workers of a bus agree on it.
    pub lease: Duration,
    /// Of the queue's workers.
    pub inference: InferenceConfig,
    /// By plugin; [`CLIENTS`](crate::executor::job::CLIENTS) for callers. Whoever is not named has weight 1 and no budget.
    pub shares: BTreeMap<String, Share>,
    /// How long an answer may serve identical requests. None: no cache.
    pub cache: Option<Duration>,
    /// Tokens go to `vllm.streaming.<job>` as they come.
    pub stream_tokens: bool,
    /// Each result goes to `agent.results.<task_id>` too.
    pub task_results: bool,
    pub offline: OfflineConfig,
    /// Where `fleet.ray_executor.v1.RayExecutorService` is served.
    pub grpc: GrpcConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A rule-based stand-in for a model.
    Offline,
    /// `fleet.ray_executor.v1` at this upstream.
    Fleet { upstream: String },
    /// OpenAI-compatible endpoints, which the workers of the queue ask (`cofferdam executor`).
    Queue,
}

impl Backend {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Fleet { .. } => "fleet",
            Self::Queue => "queue",
        }
    }
}

/// Endpoints, models and patience, as `cofferdam-inference` wants them. Never without an endpoint and a model.
#[derive(Debug, Clone, Default)]
pub struct InferenceConfig {
    pub endpoints: Vec<EndpointSettings>,
    pub models: Vec<ModelSettings>,
    /// Tries of one request over the endpoints.
    pub attempts: u32,
    /// Ask again also where the first request may have been worked, and paid for.
    pub repeat_unknown: bool,
}

#[derive(Debug, Clone)]
pub struct EndpointSettings {
    pub name: String,
    pub url: Url,
    pub token: Option<Secret>,
    pub ca: Option<PathBuf>,
    pub concurrency: u32,
    pub connect_timeout: Duration,
    pub first_timeout: Duration,
    pub idle_timeout: Duration,
    pub timeout: Duration,
    /// Of one answer, in bytes.
    pub max_answer: usize,
    /// It wants `max_completion_tokens` instead of `max_tokens`.
    pub max_completion_tokens: bool,
}

#[derive(Debug, Clone)]
pub struct ModelSettings {
    pub name: String,
    pub concurrency: u32,
    /// Endpoints, with what they call the model if that is another name.
    pub endpoints: Vec<(String, Option<String>)>,
}

/// What a plugin may have of the executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Beside others whose jobs wait: twice the weight, twice the tokens.
    pub weight: u32,
    /// In and out together, in an hour by the clock. None: as many as there are.
    pub tokens_per_hour: Option<u64>,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, tokens_per_hour: None }
    }
}

/// How the stand-in answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfflineConfig {
    pub seed: u64,
    /// Of a hundred answers so many are messy: fenced, in prose, with thoughts before them, cut off.
    pub messy_percent: u32,
}
