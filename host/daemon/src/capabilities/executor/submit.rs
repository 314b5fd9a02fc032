//! Submitting a job: a message on its queue, stored when the event commits.

use bytes::Bytes;
use cofferdam_sandbox::{ExecutorError, Job};

use super::super::Run;
use crate::executor::{
    job::{self, AnswerTo, Queue, QueuedJob},
    limits::{MAX_JOB, Names, check, resolve, within},
    sampling,
};

/// Of one event.
const MAX_JOBS: usize = 16;
/// Subject and headers of a job's message, and what the bus adds to it.
pub(super) const AROUND: usize = 1 << 10;

impl Run {
    pub(in crate::capabilities) async fn submit(&mut self, mut job: Job) -> Result<String, ExecutorError> {
        self.may_have_effects().map_err(ExecutorError::Denied)?;
        let default_model = self.executor()?.model.clone();
        self.models_granted(&job)?;
        check(&job, &Names::WIT)?;
        sampling::check(&job.sampling)?;
        if self.jobs == MAX_JOBS {
            return Err(ExecutorError::Limit(format!("this event has submitted {MAX_JOBS} jobs, the limit")));
        }
        resolve(&mut job, &default_model);
        // Dots would make more tokens of the subject.
        let own = format!("{}-j{}", self.occasion.event_id.replace('.', "-"), self.jobs);
        let queue = Queue::of(&self.plugin.name, &job);
        let id = queue.id(&own);
        let Some(place) = job::subject(&id) else {
            return Err(ExecutorError::Invalid(format!("{id:?} can't be the id of a job")));
        };
        let queued = QueuedJob {
            id: id.clone(),
            plugin: self.plugin.name.clone(),
            job,
            answer: AnswerTo::Fleet,
            stream: false,
            parent: None,
        };
        let body = serde_json::to_vec(&queued).map_err(|e| ExecutorError::Invalid(e.to_string()))?;
        within("the whole job, in JSON,", body.len(), MAX_JOB)?;
        let (size, room) = (body.len() + AROUND, self.room());
        if size > room {
            return Err(ExecutorError::Limit(format!(
                "a job of {size} bytes, and this event's commit has room for {room} more: its messages, timers, jobs \
                 and state are stored as one"
            )));
        }
        let announced = self.services.queues.announce(&queued.plugin, &queued.job).await;
        announced
            .map_err(|error| self.unavailable(&error))?
            .map_err(|too_many| ExecutorError::Limit(too_many.to_string()))?;
        self.jobs += 1;
        self.effect(place, vec![job::header()], Bytes::from(body));
        Ok(id)
    }

    fn models_granted(&mut self, job: &Job) -> Result<(), ExecutorError> {
        self.model_granted(job.model.as_deref())?;
        let agents = job.agents.iter().map(|agent| agent.model.as_str()).filter(|model| !model.is_empty());
        agents.map(Some).try_for_each(|model| self.model_granted(model))
    }
}
