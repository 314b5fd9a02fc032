//! Working the job queue: jobs are messages, worked at least once by job id; their results come out once.

mod fleet;
mod offline;
mod response;
pub mod status;
mod worker;

use cofferdam_sandbox::Job;
use serde::{Deserialize, Serialize};
pub use worker::{prepare, run};

/// A job on the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedJob {
    pub id: String,
    /// Who submitted it.
    pub plugin: String,
    pub job: Job,
}

/// Jobs, one message each.
const FILTER: &str = "cd.j.*";

pub fn job_subject(id: &str) -> String {
    format!("cd.j.{id}")
}
