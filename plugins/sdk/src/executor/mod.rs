//! Inference, as durable jobs. A [`Job`] is submitted when the event commits, and its result comes back as an event; an
//! [`Inference`] is asked here and now, and its answer recorded before the guest sees it.

mod inference;
mod sampling;
mod tokens;

pub use inference::{Completion, Inference, infer_all};
pub use sampling::{Format, Priority, Sampling};
pub use tokens::{Chunk, Tokens};

use sampling::how_to_answer;

use crate::{Pairs, sys};

/// One agent that works on a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    pub id: String,
    pub role: String,
    /// Empty: the job's model.
    pub model: String,
    /// With `{prompt}` in it (once): what the model is told, the prompt put in its place, as the user's words. Without: what it is
    /// told before the prompt, as the system's words.
    pub prompt_template: String,
}

impl Agent {
    /// An agent of the job's model that is told the prompt as it is.
    pub fn new(id: impl Into<String>, role: impl Into<String>) -> Self {
        Self { id: id.into(), role: role.into(), ..Self::default() }
    }

    /// Another model than the job's.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// See [`Agent::prompt_template`].
    #[must_use]
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.prompt_template = template.into();
        self
    }
}

/// Work for the executor.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// For the whole job, from when it is submitted. 0: the executor's default (300).
    pub timeout_seconds: u32,
    /// 0: the executor's default (3).
    pub max_retries: u32,
    pub metadata: Pairs,
    pub priority: Priority,
    pub sampling: Sampling,
}

impl Job {
    /// A job without agents; [`Job::agent`] and [`Job::with_agent`] add them.
    pub fn new(task_id: impl Into<String>, role: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { task_id: task_id.into(), role: role.into(), prompt: prompt.into(), ..Self::default() }
    }

    /// An agent of the job's model that is told the prompt as it is.
    #[must_use]
    pub fn agent(self, id: impl Into<String>, role: impl Into<String>) -> Self {
        self.with_agent(Agent::new(id, role))
    }

    /// An agent with a model or a template of its own.
    ///
    /// ```
    /// use cofferdam_sdk::executor::{Agent, Job};
    ///
    /// let french = Agent::new("dev-2", "DEV").model("small").template("In French: {prompt}");
    /// let job = Job::new("t-1", "DEV", "Say hello.").agent("dev-1", "DEV").with_agent(french);
    /// assert_eq!((job.agents[0].model.as_str(), job.agents[1].model.as_str()), ("", "small"));
    /// ```
    #[must_use]
    pub fn with_agent(mut self, agent: Agent) -> Self {
        self.agents.push(agent);
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

how_to_answer!(Job);

/// Why a job can't be submitted, asked about or cancelled, or a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// No grant covers the model, or it is another plugin's job. Or the call is of a method that only reads.
    #[error("denied: {0}")]
    Denied(String),
    /// Not well-formed: no agent, two of one id, an empty prompt, a schema that is no JSON.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Over a limit: jobs per event (16), the prompt (256 KiB), questions per call (16) and per event (256).
    #[error("limit: {0}")]
    Limit(String),
    /// No executor is configured, or one that can't do this.
    #[error("not configured: {0}")]
    NotConfigured(String),
    /// The bus is out of reach. Or there is no answer yet, and the event's time is about to end: a retry finds it.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The job ended without an answer. `kind` is one word, such as `timeout` or `unknown_model`.
    #[error("failed, {kind}: {message}")]
    Failed { kind: String, message: String },
}

impl ExecutorError {
    /// Kinds of failures that another try may not meet: the endpoint was down or busy, or the model said nothing of use.
    const PASSING: [&str; 10] = [
        "timeout",
        "hung",
        "unreachable",
        "overloaded",
        "server_error",
        "truncated",
        "empty",
        "invalid_schema",
        "unavailable",
        "budget_exhausted",
    ];

    /// True if the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Failed { kind, .. } => Self::PASSING.contains(&kind.as_str()),
            _ => false,
        }
    }
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

/// Wants a job of this plugin's to end, when the event commits. It ends as failed, of kind `cancelled`; one that has ended, or
/// never was, is fine.
pub fn cancel(job_id: &str) -> Result<(), ExecutorError> {
    sys::cancel_job(job_id)
}
