//! Inference, as durable jobs: submitting is an effect, the result comes back as an event.

use crate::{Pairs, sys};

/// One agent that works on a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    pub id: String,
    pub role: String,
    /// Empty: the job's model.
    pub model: String,
    pub prompt_template: String,
}

/// Work for the executor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// The caller's own name for the work; the result event carries it as `task_id`.
    pub task_id: String,
    pub prompt: String,
    pub role: String,
    /// Without it the executor's default model. The grant names the models.
    pub model: Option<String>,
    /// At least one.
    pub agents: Vec<Agent>,
    pub story_id: Option<String>,
    pub plan_id: Option<String>,
    /// For the whole job. 0: the executor's default (300).
    pub timeout_seconds: u32,
    /// 0: the executor's default (3).
    pub max_retries: u32,
    pub metadata: Pairs,
}

impl Job {
    /// A job without agents; [`Job::agent`] adds them.
    pub fn new(task_id: impl Into<String>, role: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { task_id: task_id.into(), role: role.into(), prompt: prompt.into(), ..Self::default() }
    }

    #[must_use]
    pub fn agent(mut self, id: impl Into<String>, role: impl Into<String>) -> Self {
        self.agents.push(Agent { id: id.into(), role: role.into(), ..Agent::default() });
        self
    }

    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    #[must_use]
    pub fn story_id(mut self, id: impl Into<String>) -> Self {
        self.story_id = Some(id.into());
        self
    }

    #[must_use]
    pub fn plan_id(mut self, id: impl Into<String>) -> Self {
        self.plan_id = Some(id.into());
        self
    }

    #[must_use]
    pub fn timeout_seconds(mut self, seconds: u32) -> Self {
        self.timeout_seconds = seconds;
        self
    }

    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Submits the job when the event commits. Returns its id, the same on every run of the event.
    pub fn submit(&self) -> Result<String, ExecutorError> {
        sys::submit(self)
    }
}

/// Why a job can't be submitted or asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// No grant covers the model.
    #[error("denied: {0}")]
    Denied(String),
    /// The job is not well-formed: no agent, empty task id or prompt.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Over a limit: jobs per event (default 16), size of the prompt (default 256 KiB).
    #[error("limit: {0}")]
    Limit(String),
    /// No executor is configured.
    #[error("not configured: {0}")]
    NotConfigured(String),
    /// The bus is out of reach.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Unknown,
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    pub phase: Phase,
    /// As the executor named it, once it accepted the job; with the `fleet` backend the deliberation id.
    pub execution_id: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What is known of a job now.
pub fn status(job_id: &str) -> Result<JobStatus, ExecutorError> {
    sys::job_status(job_id)
}
