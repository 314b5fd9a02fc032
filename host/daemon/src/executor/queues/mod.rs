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
use cofferdam_sandbox::Job;

use super::job::{self, Queue, QueuedJob};
use crate::observe::{text, trace};

pub(super) use follow::{all, durable, follow, queue};

/// A queue that was announced is announced again after so long, in case that somebody has emptied the stream.
const AGAIN: Duration = Duration::from_secs(60);
/// Queues remembered. Past it all are announced anew.
const MANY: usize = 10_000;

/// Of one plugin. Nothing takes a queue away, and each has a durable: who names models at will would make them without end.
const MAX_QUEUES: usize = 1000;
/// Those of a plugin that has too many are counted again after so long.
const COUNTED: Duration = Duration::from_secs(5);
/// Of a model's name, in messages.
const SHOWN: usize = 64;

/// Puts jobs on their queues.
pub struct Queues {
    bus: Arc<dyn Bus>,
    announced: Mutex<HashMap<Queue, Instant>>,
    /// Plugins that had too many, and when.
    full: Mutex<HashMap<String, Instant>>,
}

/// A job would need another queue, and its plugin has as many as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{plugin:?} has {MAX_QUEUES} queues, the limit, and the model {model:?} would need another; name a model that is served, or \
     delete the messages on cd.u.{plugin}.> of queues that nobody needs any more"
)]
pub struct TooMany {
    plugin: String,
    model: String,
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
        Self { bus, announced: Mutex::default(), full: Mutex::default() }
    }

    /// Tells those who work jobs that there are the queues of this one, before it is put there: its own, and those of its agents'
    /// jobs, of which it is known now that they may be.
    pub async fn announce(&self, plugin: &str, job: &Job) -> Result<Result<(), TooMany>, Error> {
        let queues = Queue::all_of(plugin, job);
        let mut room = None;
        for queue in &queues {
            let known = self.announced().contains_key(queue);
            if known || self.bus.last(&queue.notice()).await?.is_some() {
                continue;
            }
            let left = match room {
                Some(left) => left,
                None => self.room(plugin).await?,
            };
            if left == 0 {
                let model = text::excerpt(&queue.model, SHOWN).to_string();
                return Ok(Err(TooMany { plugin: plugin.to_owned(), model }));
            }
            room = Some(left - 1);
        }
        for queue in &queues {
            self.tell(queue).await?;
        }
        Ok(Ok(()))
    }

    /// How many queues a plugin may have besides those that are there.
    async fn room(&self, plugin: &str) -> Result<usize, Error> {
        if lock(&self.full).get(plugin).is_some_and(|at| at.elapsed() < COUNTED) {
            return Ok(0);
        }
        let found = all(&self.bus, &format!("cd.u.{plugin}.>")).await?.len();
        let mut full = lock(&self.full);
        if found < MAX_QUEUES {
            full.remove(plugin);
        } else {
            full.insert(plugin.to_owned(), Instant::now());
        }
        Ok(MAX_QUEUES.saturating_sub(found))
    }

    async fn tell(&self, queue: &Queue) -> Result<(), Error> {
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

    /// Puts a job on its queue at once, unless one with its id is there. For whoever has no commit to put it in. `trace`: of what
    /// submits it.
    pub async fn submit_now(
        &self,
        queued: &QueuedJob,
        trace: &str,
    ) -> Result<Result<Submitted, TooMany>, Error> {
        match self.announce(&queued.plugin, &queued.job).await? {
            Ok(()) => self.put(queued, trace).await.map(Ok),
            Err(too_many) => Ok(Err(too_many)),
        }
    }

    /// The same for a part of a job, whose queues were let through when that was submitted.
    pub(super) async fn put(&self, queued: &QueuedJob, trace: &str) -> Result<Submitted, Error> {
        let Some(subject) = job::subject(&queued.id) else {
            return Err(Error::Refused(format!("{:?} can't be the id of a job", queued.id)));
        };
        self.tell(&Queue::of(&queued.plugin, &queued.job)).await?;
        let body = serde_json::to_vec(queued).map_err(|e| Error::Unreadable {
            subject: subject.clone(),
            reason: format!("it has no form in JSON: {e}"),
        })?;
        let headers = vec![job::header(), (trace::HEADER.to_owned(), trace.to_owned())];
        let job = Message { subject, headers, data: Bytes::from(body) };
        create(&self.bus, job).await
    }

    fn announced(&self) -> MutexGuard<'_, HashMap<Queue, Instant>> {
        lock(&self.announced)
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::executor::testing;

    fn queued(model: &str, own: &str) -> QueuedJob {
        let mut queued = testing::job(&["a"]);
        queued.job.model = Some(model.into());
        queued.id = Queue::of(&queued.plugin, &queued.job).id(own);
        queued
    }

    #[tokio::test]
    async fn a_plugin_has_so_many_queues_and_no_more() {
        let (bus, _folder) = testing::bus().await;
        let earlier = Queues::new(bus.clone());
        let models = (1..MAX_QUEUES).map(|n| queued(&format!("m{n}"), "x"));
        let told = models.map(|queued| {
            let earlier = &earlier;
            async move { earlier.announce(&queued.plugin, &queued.job).await.unwrap() }
        });
        assert!(join_all(told).await.into_iter().all(|told| told.is_ok()));

        let queues = Queues::new(bus.clone());
        let submitted = async |job: &QueuedJob| queues.submit_now(job, "00-trace").await.unwrap();
        // One more is allowed, and not two of one job, of which nothing is told then.
        let mut two = queued("new", "x");
        two.job.agents.push(two.job.agents[0].clone());
        two.job.agents[1].model = "newer".into();
        let too_many = submitted(&two).await.unwrap_err().to_string();
        assert!(too_many.starts_with("\"tester\" has 1000 queues, the limit"), "{too_many}");
        assert!(too_many.contains("cd.u.tester.>") && too_many.contains("the model \"newe"), "{too_many}");
        assert_eq!(submitted(&queued("new", "x")).await, Ok(Submitted::New));
        assert!(submitted(&queued("newest", "x")).await.is_err());
        assert!(submitted(&queued("newest", "x")).await.is_err());
        // Those that are there are as they were, and other plugins' too.
        assert_eq!(submitted(&queued("m7", "x")).await, Ok(Submitted::New));
        assert_eq!(submitted(&queued("m7", "x")).await, Ok(Submitted::Before));
        let other = QueuedJob { plugin: "other".into(), ..queued("newest", "x") };
        let id = Queue::of("other", &other.job).id("x");
        assert_eq!(submitted(&QueuedJob { id, ..other }).await, Ok(Submitted::New));
        assert_eq!(all(&bus, "cd.u.tester.>").await.unwrap().len(), MAX_QUEUES);
    }

    #[tokio::test]
    async fn a_job_carries_the_trace_of_what_submits_it() {
        let (bus, _folder) = testing::bus().await;
        let job = queued("m", "x");
        assert_eq!(Queues::new(bus.clone()).submit_now(&job, "00-trace").await.unwrap(), Ok(Submitted::New));
        let stored = bus.last(&job::subject(&job.id).unwrap()).await.unwrap().unwrap();
        let trace = (trace::HEADER.to_owned(), "00-trace".to_owned());
        assert!(stored.message.headers.contains(&trace), "{:?}", stored.message.headers);
    }
}
