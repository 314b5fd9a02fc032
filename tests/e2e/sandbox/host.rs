//! A host of its own: keeps what the guest does, grants what a test lets it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_sandbox::{
    Answer, Call, Chunk, Completion, EmitError, ExecutorError, Inference, Job, JobPhase, JobStatus, LogLevel,
    MetricError, Pairs, RpcRequest, RpcStatus, StateError,
};

/// Emits only below `test.`, knows one model and no metric; everything else a test sets.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) published: Vec<(String, Pairs, Bytes)>,
    pub(super) logs: Vec<(LogLevel, String)>,
    pub(super) jobs: Vec<Job>,
    /// At once, last.
    pub(super) asked: Vec<Inference>,
    /// Of tokens, that are open, and how many there have been. Each gives its prompt away, from the end.
    pub(super) open: BTreeMap<u32, Inference>,
    pub(super) streams: u32,
    pub(super) calls: Vec<RpcRequest>,
    /// The cell, if there is one.
    pub(super) cell: Option<BTreeMap<String, Bytes>>,
    pub(super) config: BTreeMap<String, String>,
    /// The counter that it knows, if any.
    pub(super) counter: Option<&'static str>,
    pub(super) attempt: u32,
    /// How long an upstream takes.
    pub(super) upstream_takes: Duration,
    pub(super) readings: u64,
}

const MAX_MESSAGE: usize = 1 << 20;

impl Host {
    fn emit(&mut self, subject: String, headers: Pairs, data: Bytes) -> Result<String, EmitError> {
        if !subject.starts_with("test.") {
            return Err(EmitError::Denied(format!("no grant covers {subject}")));
        }
        if data.len() > MAX_MESSAGE {
            return Err(EmitError::TooLarge(format!("{} bytes, the limit is {MAX_MESSAGE}", data.len())));
        }
        if self.published.len() >= 1_000 {
            return Err(EmitError::Limit("more than 1000 messages".to_owned()));
        }
        self.published.push((subject, headers, data));
        Ok(format!("m{}", self.published.len()))
    }

    fn submit(&mut self, job: Job) -> Result<String, ExecutorError> {
        if job.model.as_deref().is_some_and(|model| model != "small") {
            return Err(ExecutorError::Denied(format!("no grant covers {}", job.model.unwrap_or_default())));
        }
        self.jobs.push(job);
        Ok(format!("job-{}", self.jobs.len()))
    }

    /// With the prompt in capitals, unless it is "fail".
    fn completes(&self, asked: Inference) -> Result<Completion, ExecutorError> {
        if asked.prompt == "fail" {
            return Err(ExecutorError::Failed { kind: "empty".to_owned(), message: "no choices".to_owned() });
        }
        Ok(Completion { text: asked.prompt.to_uppercase(), ..Completion::default() })
    }

    fn cell(&mut self) -> Result<&mut BTreeMap<String, Bytes>, StateError> {
        self.cell.as_mut().ok_or_else(|| StateError::NoCell("no order key".to_owned()))
    }
}

#[async_trait::async_trait]
impl cofferdam_sandbox::Host for Host {
    async fn call(&mut self, call: Call) -> Answer {
        match call {
            Call::Attempt => Answer::Attempt(self.attempt),
            Call::LastAttempt => Answer::LastAttempt(false),
            Call::DeadlineMs => Answer::DeadlineMs(1_000),
            Call::OrderKey => Answer::OrderKey(self.cell.is_some().then(|| "key".to_owned())),
            Call::Emit { subject, headers, data } => Answer::Emit(self.emit(subject, headers, data)),
            Call::Schedule(later) => Answer::Schedule(self.emit(later.subject, later.headers, later.data)),
            Call::CancelTimer(id) => Answer::CancelTimer(Err(EmitError::Denied(id))),
            Call::Rpc(request) => {
                self.calls.push(request);
                tokio::time::sleep(self.upstream_takes).await;
                let message = "no such method".to_owned();
                Answer::Rpc(Err(RpcStatus { code: 12, message, local: false }))
            }
            Call::Submit(job) => Answer::Submit(self.submit(job)),
            Call::JobStatus(id) => Answer::JobStatus(Ok(JobStatus {
                phase: JobPhase::Running,
                execution_id: Some(format!("execution of {id}")),
                error: None,
            })),
            Call::CancelJob(id) => Answer::CancelJob(Err(ExecutorError::Denied(id))),
            Call::Infer(asked) => {
                self.asked.clone_from(&asked);
                Answer::Infer(asked.into_iter().map(|asked| self.completes(asked)).collect())
            }
            Call::Tokens(asked) => {
                self.streams += 1;
                self.open.insert(self.streams, asked);
                Answer::Tokens(Ok(self.streams))
            }
            Call::NextToken(stream) => Answer::NextToken(Ok(self.open.get_mut(&stream).and_then(|asked| {
                let text = asked.prompt.pop()?.to_string();
                Some(Chunk { text, anew: false })
            }))),
            Call::FinishTokens(stream) => {
                let asked = self.open.get(&stream).cloned();
                let none = || ExecutorError::Invalid(format!("no stream {stream}"));
                Answer::FinishTokens(asked.ok_or_else(none).and_then(|asked| self.completes(asked)))
            }
            Call::DropTokens(stream) => {
                self.open.remove(&stream);
                Answer::Unit
            }
            Call::StateGet { key, .. } => Answer::StateGet(self.cell().map(|cell| cell.get(&key).cloned())),
            Call::StatePut { key, value, .. } => {
                Answer::StatePut(self.cell().map(|cell| drop(cell.insert(key, value))))
            }
            Call::StateDelete { key, .. } => {
                Answer::StateDelete(self.cell().map(|cell| drop(cell.remove(&key))))
            }
            Call::StateKeys { prefix, .. } => Answer::StateKeys(
                self.cell().map(|cell| cell.keys().filter(|key| key.starts_with(&prefix)).cloned().collect()),
            ),
            Call::Config(key) => Answer::Config(self.config.get(&key).cloned()),
            Call::Log { level, message, .. } => {
                self.logs.push((level, message));
                Answer::Unit
            }
            Call::Count { name, .. } if self.counter == Some(name.as_str()) => Answer::Count(Ok(())),
            Call::Count { name, .. } => Answer::Count(Err(MetricError::Undeclared(name))),
            Call::Observe { name, .. } => Answer::Observe(Err(MetricError::Undeclared(name))),
            Call::SetGauge { name, .. } => Answer::SetGauge(Err(MetricError::Undeclared(name))),
            Call::Now => {
                self.readings += 1;
                Answer::Now(self.readings)
            }
            Call::Random(len) => Answer::Random(vec![7; usize::try_from(len.min(65_536)).unwrap()]),
        }
    }
}
