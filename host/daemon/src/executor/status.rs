//! What is known of a job: its record, one message on a subject of its own, written as it ends (or, with the fleet's executor, as
//! that accepts it).

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message};
use cofferdam_sandbox::{JobPhase, JobStatus};
use serde::{Deserialize, Serialize};

use super::{
    job::{JOB_DAYS, QueuedJob, kept_for},
    look::{Crew, Whole},
};

/// A record outlives its job's message, which would else read as queued once more.
const RECORD_DAYS: u64 = JOB_DAYS + 1;

/// The record of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub phase: JobPhase,
    /// As the executor named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `error_type` of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default)]
    pub task_id: String,
    #[serde(default)]
    pub role: String,
    #[serde(default)]
    pub model: String,
    /// Nanoseconds since the epoch; 0 where nobody knows.
    #[serde(default)]
    pub submitted: u64,
    #[serde(default)]
    pub started: u64,
    #[serde(default)]
    pub ended: u64,
    /// Who worked it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker: String,
    #[serde(default)]
    pub tokens_in: u64,
    #[serde(default)]
    pub tokens_out: u64,
    /// The jobs of its agents, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    /// What was answered, where somebody may ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// The answer of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub agent: String,
    pub text: String,
    #[serde(default)]
    pub reasoning: String,
    /// The model that the endpoint says it was.
    #[serde(default)]
    pub model: String,
    /// `stop`, `length` or what else the endpoint said.
    #[serde(default)]
    pub finish: Option<String>,
    /// It was another job's, from the cache.
    #[serde(default)]
    pub cached: bool,
    /// Text and reasoning are not here: they were too large to be stored beside their event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

impl Record {
    pub fn new(phase: JobPhase) -> Self {
        Self {
            phase,
            execution_id: None,
            error: None,
            kind: None,
            task_id: String::new(),
            role: String::new(),
            model: String::new(),
            submitted: 0,
            started: 0,
            ended: 0,
            worker: String::new(),
            tokens_in: 0,
            tokens_out: 0,
            parts: Vec::new(),
            answer: None,
        }
    }

    /// Of a job, with what it is about.
    pub fn of(queued: &QueuedJob, phase: JobPhase) -> Self {
        let job = &queued.job;
        Self {
            task_id: job.task_id.clone(),
            role: job.role.clone(),
            model: job.model.clone().unwrap_or_default(),
            ..Self::new(phase)
        }
    }

    pub fn message(&self, id: &str) -> Message {
        Message {
            subject: subject(id),
            headers: vec![kept_for(RECORD_DAYS)],
            data: Bytes::from(serde_json::to_vec(self).unwrap_or_default()),
        }
    }
}

/// All records.
pub const RECORDS: &str = "cd.e.*";

pub fn subject(id: &str) -> String {
    format!("cd.e.{id}")
}

/// The record of a job, if there is one.
pub async fn record(bus: &Arc<dyn Bus>, id: &str) -> Result<Option<Record>, Error> {
    let Some(stored) = bus.last(&subject(id)).await? else { return Ok(None) };
    let read = serde_json::from_slice(&stored.message.data);
    read.map(Some).map_err(|e| Error::Unreadable { subject: subject(id), reason: e.to_string() })
}

/// How a job stands: by its record; by those of its parts, where it has some; else it is queued, unless a worker says that it
/// works it.
pub async fn read(bus: &Arc<dyn Bus>, id: &str) -> Result<JobStatus, Error> {
    let Some(whole) = Whole::find(bus, id).await? else {
        return Ok(JobStatus { phase: JobPhase::Unknown, execution_id: None, error: None });
    };
    let execution_id = whole.record.as_ref().and_then(|record| record.execution_id.clone());
    let crew = if whole.is_settled() { Crew::default() } else { Crew::now(bus).await? };
    let standing = whole.standing(&crew.by_job());
    Ok(JobStatus { phase: standing.phase, execution_id, error: standing.error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_outlives_the_message_of_its_job() {
        let message = Record::new(JobPhase::Done).message("j");
        assert_eq!(message.headers, [("Nats-TTL".into(), "691200s".into())]);
        assert_eq!(crate::executor::job::header(), ("Nats-TTL".into(), "604800s".into()));
    }
}
