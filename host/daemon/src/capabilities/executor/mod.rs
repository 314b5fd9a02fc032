//! Inference as durable jobs, which `crate::executor` works. Submitting and cancelling are effects: messages that commit with
//! the event. An inference is none: its job is submitted at once, and its answer recorded by whoever works it.

mod ask;
mod cancel;
mod infer;
mod submit;
mod tokens;
mod wait;

use cofferdam_bus::Error;
use cofferdam_sandbox::{ExecutorError, JobStatus};

pub(super) use self::infer::Inferences;
use super::Run;
use crate::{
    config::ExecutorConfig,
    executor::{limits::DEFAULT_MODEL, status},
    fault::Fault,
    grants::Kind,
};

impl Run {
    pub(super) async fn job_status(&mut self, id: &str) -> Result<JobStatus, ExecutorError> {
        status::read(&self.services.bus, id).await.map_err(|error| self.unavailable(&error))
    }

    fn executor(&self) -> Result<&ExecutorConfig, ExecutorError> {
        self.services.executor.as_ref().ok_or_else(|| {
            ExecutorError::NotConfigured("no executor; add [executor] with backend = \"offline\"".into())
        })
    }

    fn model_granted(&mut self, model: Option<&str>) -> Result<(), ExecutorError> {
        let granted = self.granted(Kind::Executor, model.unwrap_or(DEFAULT_MODEL));
        granted.map_err(|denial| ExecutorError::Denied(denial.to_string()))
    }

    fn unavailable(&mut self, error: &Error) -> ExecutorError {
        self.blame.get_or_insert(Fault::Host);
        ExecutorError::Unavailable(error.to_string())
    }
}
