//! What is known of a job: its newest status, one message on a subject of its own.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message};
use cofferdam_sandbox::{JobPhase, JobStatus};

use super::{JOB_DAYS, job_subject, kept_for};

/// A status outlives its job's message, which would else read as queued once more.
const STATUS_DAYS: u64 = JOB_DAYS + 1;

fn subject(id: &str) -> String {
    format!("cd.q.{id}")
}

/// Queued if the job is there and nobody has said anything of it yet.
pub async fn read(bus: &Arc<dyn Bus>, id: &str) -> Result<JobStatus, Error> {
    if let Some(stored) = bus.last(&subject(id)).await? {
        return serde_json::from_slice(&stored.message.data)
            .map_err(|e| Error::Unreadable { subject: subject(id), reason: e.to_string() });
    }
    let phase =
        if bus.last(&job_subject(id)).await?.is_some() { JobPhase::Queued } else { JobPhase::Unknown };
    Ok(JobStatus { phase, execution_id: None, error: None })
}

pub fn message(id: &str, status: &JobStatus) -> Message {
    Message {
        subject: subject(id),
        headers: vec![kept_for(STATUS_DAYS)],
        data: Bytes::from(serde_json::to_vec(status).unwrap_or_default()),
    }
}
