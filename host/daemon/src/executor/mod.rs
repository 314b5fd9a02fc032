//! Working the job queue: jobs are messages, worked at least once by job id; their results come out once.

mod ending;
mod fleet;
mod in_flight;
mod offline;
mod response;
pub mod status;
#[cfg(test)]
mod testing;
mod tries;
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

/// A job's message is kept for so long, worked or not: whoever submitted it has given up long before.
const JOB_DAYS: u64 = 7;

pub fn job_subject(id: &str) -> String {
    format!("cd.j.{id}")
}

/// What a job's message says of how long it is kept.
pub fn job_header() -> (String, String) {
    kept_for(JOB_DAYS)
}

fn kept_for(days: u64) -> (String, String) {
    ("Nats-TTL".into(), format!("{}s", days * 24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_outlives_the_message_of_its_job() {
        let status = status::message("j", &testing::DONE);
        assert_eq!(status.headers, [("Nats-TTL".into(), "691200s".into())]);
        assert_eq!(job_header(), ("Nats-TTL".into(), "604800s".into()));
    }
}
