//! The one seam between guest and host: every host call of every contract version becomes a [`Call`] and comes
//! back as an [`Answer`]. Recording, replay and fault injection belong around [`Host::call`]; what a call does
//! belongs to whoever implements [`Host`].

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a guest can reach. One value serves one run of one event or request, and comes back to the caller with
/// [`Run`](crate::Run): `Any` lets the caller have its own type again.
#[async_trait]
pub trait Host: Any + Send + 'static {
    /// Answers one call. The answer's variant is the call's; see [`Answer`].
    async fn call(&mut self, call: Call) -> Answer;
}

/// Name and value pairs, in order.
pub type Pairs = Vec<(String, String)>;

/// One message as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: String,
    pub subject: String,
    pub headers: Pairs,
    pub data: Bytes,
    /// Nanoseconds since the epoch.
    pub timestamp: u64,
}

/// One call of a gRPC method that the plugin serves, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: String,
    /// `package.Service/Method`.
    pub method: String,
    pub metadata: Pairs,
    /// An encoded protobuf message.
    pub request: Bytes,
    /// Nanoseconds since the epoch.
    pub timestamp: u64,
}

/// A status that the guest answered a [`Request`] with. Its text is the guest's, of any length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("gRPC status {code}: {message}")]
pub struct ServeError {
    /// The gRPC number, 1 to 16: it never is OK.
    pub code: u8,
    pub message: String,
}

/// What the guest answered a [`Request`]: an encoded message, or a status.
pub type Reply = Result<Bytes, ServeError>;

/// What the handler returned instead of `ok`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    Retry { reason: String, after_ms: Option<u64> },
    Reject(String),
}

/// Which cell of state; `None` is the event's own.
pub type CellName = Option<String>;

/// A host call, whatever version of the contract it came through. A stream of tokens is the number that [`Answer::Tokens`] gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    Attempt,
    LastAttempt,
    DeadlineMs,
    OrderKey,
    Emit { subject: String, headers: Pairs, data: Bytes },
    Schedule(Scheduled),
    CancelTimer(String),
    Rpc(RpcRequest),
    Submit(Job),
    JobStatus(String),
    CancelJob(String),
    Infer(Vec<Inference>),
    Tokens(Inference),
    NextToken(u32),
    FinishTokens(u32),
    DropTokens(u32),
    StateGet { cell: CellName, key: String },
    StatePut { cell: CellName, key: String, value: Bytes },
    StateDelete { cell: CellName, key: String },
    StateKeys { cell: CellName, prefix: String },
    Config(String),
    Log { level: LogLevel, message: String, fields: Pairs },
    Count { name: String, labels: Pairs, delta: u64 },
    Observe { name: String, labels: Pairs, value: f64 },
    SetGauge { name: String, labels: Pairs, value: f64 },
    Now,
    Random(u32),
}

/// The answer to the [`Call`] of the same name. `Unit` answers `Log` and `DropTokens`. `Infer` has an answer for each
/// question, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Attempt(u32),
    LastAttempt(bool),
    DeadlineMs(u64),
    OrderKey(Option<String>),
    Emit(Result<String, EmitError>),
    Schedule(Result<String, EmitError>),
    CancelTimer(Result<(), EmitError>),
    Rpc(Result<Bytes, RpcStatus>),
    Submit(Result<String, ExecutorError>),
    JobStatus(Result<JobStatus, ExecutorError>),
    CancelJob(Result<(), ExecutorError>),
    Infer(Vec<Result<Completion, ExecutorError>>),
    Tokens(Result<u32, ExecutorError>),
    NextToken(Result<Option<Chunk>, ExecutorError>),
    FinishTokens(Result<Completion, ExecutorError>),
    StateGet(Result<Option<Bytes>, StateError>),
    StatePut(Result<(), StateError>),
    StateDelete(Result<(), StateError>),
    StateKeys(Result<Vec<String>, StateError>),
    Config(Option<String>),
    Unit,
    Count(Result<(), MetricError>),
    Observe(Result<(), MetricError>),
    SetGauge(Result<(), MetricError>),
    Now(u64),
    Random(Vec<u8>),
}

/// A message for later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// Nanoseconds since the epoch.
    pub at: u64,
    pub subject: String,
    pub headers: Pairs,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EmitError {
    #[error("denied: {0}")]
    Denied(String),
    #[error("too large: {0}")]
    TooLarge(String),
    #[error("limit: {0}")]
    Limit(String),
    #[error("invalid subject: {0}")]
    InvalidSubject(String),
    #[error("no stream: {0}")]
    NoStream(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcRequest {
    pub upstream: String,
    pub method: String,
    pub request: Bytes,
    pub timeout_ms: Option<u32>,
    pub metadata: Pairs,
    /// Although an earlier run may have made it.
    pub repeat: bool,
}

/// A gRPC status other than a plain answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("gRPC status {code}: {message}")]
pub struct RpcStatus {
    /// The gRPC number, 0 to 16.
    pub code: u8,
    pub message: String,
    /// The host's word, not the upstream's.
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub id: String,
    pub role: String,
    pub model: String,
    pub prompt_template: String,
}

/// What of a plugin's work comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// How a model is to answer. Left to the executor where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    pub temperature: Option<f32>,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub format: Format,
}

/// What the answer has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
    /// The schema is JSON.
    Schema {
        name: String,
        schema: String,
        strict: bool,
    },
}

/// Work for an executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub task_id: String,
    pub prompt: String,
    pub role: String,
    pub model: Option<String>,
    pub agents: Vec<Agent>,
    pub story_id: Option<String>,
    pub plan_id: Option<String>,
    pub timeout_seconds: u32,
    pub max_retries: u32,
    pub metadata: Pairs,
    #[serde(default)]
    pub priority: Priority,
    #[serde(default)]
    pub sampling: Sampling,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ExecutorError {
    #[error("denied: {0}")]
    Denied(String),
    #[error("invalid: {0}")]
    Invalid(String),
    #[error("limit: {0}")]
    Limit(String),
    #[error("not configured: {0}")]
    NotConfigured(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("{kind}: {message}")]
    Failed { kind: String, message: String },
}

/// One question to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    pub model: Option<String>,
    pub system: Option<String>,
    pub prompt: String,
    pub sampling: Sampling,
    pub priority: Priority,
    pub timeout_seconds: u32,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    pub text: String,
    pub reasoning: String,
    pub model: String,
    pub finish: Option<String>,
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub cached: bool,
}

/// A piece of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub text: String,
    /// What came before it is void.
    pub anew: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    Unknown,
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    pub phase: JobPhase,
    pub execution_id: Option<String>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StateError {
    #[error("no cell: {0}")]
    NoCell(String),
    #[error("denied: {0}")]
    Denied(String),
    #[error("limit: {0}")]
    Limit(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MetricError {
    #[error("undeclared: {0}")]
    Undeclared(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}
