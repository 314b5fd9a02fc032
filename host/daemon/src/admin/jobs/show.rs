//! All that is known of one job.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Bus, Error};
use cofferdam_sandbox::JobPhase;
use fleet_proto::admin::v1::{JobPart, ShowJobResponse, Waiting};
use serde_json::Value;

use super::{
    cancel,
    summary::{summary, time},
};
use crate::executor::{
    job::{Queue, QueuedJob, patience},
    look::{Crew, Whole, ahead},
    status::Record,
};

pub(super) async fn show(bus: &Arc<dyn Bus>, whole: &Whole, text: bool) -> Result<ShowJobResponse, Error> {
    let crew = Crew::now(bus).await?;
    let worked = crew.by_job();
    let standing = whole.standing(&worked);
    let mut parts = Vec::new();
    for (n, part) in whole.parts.iter().enumerate() {
        // Its own, for the times of its queue; it has no prompt.
        let own = Whole::find(bus, &part.id).await?;
        let summary = own.as_ref().map(|own| summary(own, &part.standing(&worked), usize::MAX));
        let agent = whole.queued.as_ref().and_then(|queued| queued.job.agents.get(n));
        let answered = part.record.as_ref().and_then(|record| record.answer.as_ref());
        parts.push(JobPart {
            summary,
            agent: agent
                .map(|agent| &agent.id)
                .or(answered.map(|answer| &answer.agent))
                .cloned()
                .unwrap_or_default(),
            record: part.record.as_ref().map(|record| record_json(record, text)).unwrap_or_default(),
        });
    }
    let parent = whole.queued.as_ref().and_then(|queued| queued.parent.as_ref());
    let cancel_asked = cancel::asked(bus, &whole.id).await?
        || match parent {
            Some(parent) => cancel::asked(bus, &parent.id).await?,
            None => false,
        };
    let waiting = match &whole.queued {
        Some(queued) if standing.phase == JobPhase::Queued => {
            Some(waiting(bus, &crew, queued, cancel_asked).await?)
        }
        _ => None,
    };
    Ok(ShowJobResponse {
        summary: Some(summary(whole, &standing, usize::MAX)),
        parts,
        job: whole.queued.as_ref().map(|queued| job_json(queued, text)).unwrap_or_default(),
        record: whole.record.as_ref().map(|record| record_json(record, text)).unwrap_or_default(),
        waiting,
        deadline_at: whole.queued.as_ref().and_then(|queued| time(deadline(queued, whole.submitted))),
        cancel_asked,
    })
}

async fn waiting(
    bus: &Arc<dyn Bus>,
    crew: &Crew,
    queued: &QueuedJob,
    cancel_asked: bool,
) -> Result<Waiting, Error> {
    let queue = Queue::of(&queued.plugin, &queued.job);
    let ahead = ahead(bus, queued).await?;
    let why = match cancel_asked {
        true => "it is to be cancelled, which happens when a worker takes it".to_owned(),
        false => crew.why(&queued.plugin, &queue.model),
    };
    Ok(Waiting { queue: queue.durable(), ahead: ahead.jobs, at_least: ahead.at_least, why })
}

/// In nanoseconds since the epoch; 0 if nobody knows when it was submitted.
fn deadline(queued: &QueuedJob, submitted: u64) -> u64 {
    let submitted = queued.parent.as_ref().map_or(submitted, |parent| parent.submitted);
    let seconds = patience(&queued.job).as_secs();
    if submitted == 0 { 0 } else { submitted.saturating_add(seconds.saturating_mul(1_000_000_000)) }
}

fn job_json(queued: &QueuedJob, text: bool) -> Bytes {
    let mut job = serde_json::to_value(queued).unwrap_or_default();
    if !text && let Some(job) = job["job"].as_object_mut() {
        job.remove("prompt");
    }
    bytes(&job)
}

fn record_json(record: &Record, text: bool) -> Bytes {
    let mut record = serde_json::to_value(record).unwrap_or_default();
    if !text && let Some(answer) = record["answer"].as_object_mut() {
        answer.remove("text");
        answer.remove("reasoning");
    }
    bytes(&record)
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
