//! Queues of jobs: telling that there is one, putting a job there, and finding all there are. A queue has a durable of its own,
//! which whoever works it makes; whoever submits says no more than that there is such a queue, before its first job.

pub(super) mod fair;
mod follow;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message, Publish};

use super::job::{self, Queue, QueuedJob};

pub(super) use follow::{all, durable, follow, queue};

/// A queue that was announced is announced again after so long, in case that somebody has emptied the stream.
const AGAIN: Duration = Duration::from_secs(60);
/// Queues remembered. Past it all are announced anew.
const MANY: usize = 10_000;

/// Puts jobs on their queues.
pub struct Queues {
    bus: Arc<dyn Bus>,
    announced: Mutex<HashMap<Queue, Instant>>,
}

/// What became of a job that was to be put on its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    New,
    /// One with this id is there already.
    Before,
}

impl Queues {
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, announced: Mutex::default() }
    }

    /// Tells those who work jobs that there is such a queue, before a job is put there.
    pub async fn announce(&self, queue: &Queue) -> Result<(), Error> {
        if self.announced().get(queue).is_some_and(|at| at.elapsed() < AGAIN) {
            return Ok(());
        }
        let notice = Message {
            subject: queue.notice(),
            headers: Vec::new(),
            data: Bytes::from(serde_json::to_vec(queue).unwrap_or_default()),
        };
        create(&self.bus, notice).await?;
        let mut announced = self.announced();
        if announced.len() >= MANY {
            announced.clear();
        }
        announced.insert(queue.clone(), Instant::now());
        Ok(())
    }

    /// Puts a job on its queue at once, unless one with its id is there. For whoever has no commit to put it in.
    pub async fn submit_now(&self, queued: &QueuedJob) -> Result<Submitted, Error> {
        let Some(subject) = job::subject(&queued.id) else {
            return Err(Error::Refused(format!("{:?} can't be the id of a job", queued.id)));
        };
        self.announce(&Queue::of(&queued.plugin, &queued.job)).await?;
        let body = serde_json::to_vec(queued).map_err(|e| Error::Unreadable {
            subject: subject.clone(),
            reason: format!("it has no form in JSON: {e}"),
        })?;
        let job = Message { subject, headers: vec![job::header()], data: Bytes::from(body) };
        create(&self.bus, job).await
    }

    fn announced(&self) -> MutexGuard<'_, HashMap<Queue, Instant>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores a message where there is none.
pub(super) async fn create(bus: &Arc<dyn Bus>, message: Message) -> Result<Submitted, Error> {
    let how = Publish { expected_last_subject_sequence: Some(0), ..Publish::default() };
    match bus.publish(message, how).await {
        Ok(_) => Ok(Submitted::New),
        Err(Error::WrongLastSequence { .. }) => Ok(Submitted::Before),
        Err(error) => Err(error),
    }
}
