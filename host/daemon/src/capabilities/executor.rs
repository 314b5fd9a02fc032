//! Inference as durable jobs: submitting is an effect, a message on the job queue; `crate::executor` works it.

use bytes::Bytes;
use cofferdam_sandbox::{ExecutorError, Job, JobPhase, JobStatus};

use super::Run;
use crate::{
    dispatch::Fault,
    executor::{QueuedJob, job_subject, status},
    grants::Kind,
};

/// Of one event.
const MAX_JOBS: usize = 16;
const MAX_PROMPT: usize = 256 << 10;

impl Run {
    pub(super) fn submit(&mut self, mut job: Job) -> Result<String, ExecutorError> {
        let Some(executor) = &self.services.executor else {
            return Err(ExecutorError::NotConfigured(
                "no executor; add [executor] with backend = \"offline\"".into(),
            ));
        };
        let default_model = executor.model.clone();
        let model = job.model.clone().unwrap_or_else(|| "default".to_owned());
        self.granted(Kind::Executor, &model).map_err(|denial| ExecutorError::Denied(denial.to_string()))?;
        for agent in job.agents.iter().filter(|a| !a.model.is_empty()) {
            self.plugin
                .grants
                .check(Kind::Executor, &agent.model)
                .map_err(|denial| ExecutorError::Denied(denial.to_string()))?;
        }
        if job.model.as_deref().is_none_or(|m| m == "default") {
            job.model = Some(default_model);
        }
        if job.task_id.trim().is_empty() {
            return Err(ExecutorError::Invalid(
                "task-id is empty; name the work, so that its result can be told".into(),
            ));
        }
        if job.prompt.trim().is_empty() {
            return Err(ExecutorError::Invalid("the prompt is empty".into()));
        }
        if job.agents.is_empty() {
            return Err(ExecutorError::Invalid("a job needs at least one agent".into()));
        }
        if job.prompt.len() > MAX_PROMPT {
            let size = job.prompt.len();
            return Err(ExecutorError::Limit(format!("the prompt has {size} bytes, more than {MAX_PROMPT}")));
        }
        if self.jobs == MAX_JOBS {
            return Err(ExecutorError::Limit(format!("this event has submitted {MAX_JOBS} jobs, the limit")));
        }
        // Dots would make more tokens of the subject.
        let id = format!("{}-j{}", self.occasion.event_id.replace('.', "-"), self.jobs);
        self.jobs += 1;
        let queued = QueuedJob { id: id.clone(), plugin: self.plugin.name.clone(), job };
        let body = serde_json::to_vec(&queued).map_err(|e| ExecutorError::Invalid(e.to_string()))?;
        self.effect(job_subject(&id), Vec::new(), Bytes::from(body));
        Ok(id)
    }

    pub(super) async fn job_status(&mut self, id: &str) -> Result<JobStatus, ExecutorError> {
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || id.is_empty() {
            return Ok(JobStatus { phase: JobPhase::Unknown, execution_id: None, error: None });
        }
        status::read(&self.services.bus, id).await.map_err(|error| {
            self.blame.get_or_insert(Fault::Host);
            ExecutorError::Unavailable(error.to_string())
        })
    }
}
