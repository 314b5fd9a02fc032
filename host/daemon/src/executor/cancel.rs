//! Wishes that jobs end. A wish is a message of its own, beside the job: whoever works the job hears of it and drops the request,
//! and one that waits ends when it is taken. A wish that comes after the end changes nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message, Stored};
use cofferdam_sandbox::{JobPhase, JobStatus};
use tokio_util::sync::CancellationToken;

use super::{
    job::{self, JOB_DAYS, kept_for},
    queues, status,
};

/// All wishes.
pub const WISHES: &str = "cd.x.*";
const PREFIX: &str = "cd.x.";
/// A wish outlives its job's message.
const WISH_DAYS: u64 = JOB_DAYS + 1;
/// Wishes remembered before the old ones are looked for.
const MANY: usize = 4096;

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wished {
    /// It is known to all who work jobs, or will be. The job's record tells how it ended.
    Noted,
    /// The job has ended, in this way.
    Ended(JobPhase),
    /// Another executor has it, under this id, and takes no wishes.
    Elsewhere { execution_id: String },
    /// There is no such job.
    Unknown,
}

/// Asks for the end of a job, and of its parts.
pub async fn cancel(bus: &Arc<dyn Bus>, id: &str) -> Result<Wished, Error> {
    let JobStatus { phase, execution_id, .. } = status::read(bus, id).await?;
    match phase {
        JobPhase::Unknown => Ok(Wished::Unknown),
        ended @ (JobPhase::Done | JobPhase::Failed | JobPhase::Cancelled) => Ok(Wished::Ended(ended)),
        JobPhase::Queued | JobPhase::Running => {
            // Its record says so only once that has accepted it.
            if let Some(execution_id) = execution_id {
                return Ok(Wished::Elsewhere { execution_id });
            }
            queues::create(bus, message(id)).await?;
            Ok(Wished::Noted)
        }
    }
}

/// The wish, for whoever puts it into a commit. `id` is a job's.
pub fn message(id: &str) -> Message {
    Message { subject: format!("{PREFIX}{id}"), headers: vec![kept_for(WISH_DAYS)], data: Bytes::new() }
}

/// All wishes that this worker has heard of, and those who hear of new ones.
#[derive(Debug, Default)]
pub(super) struct Wishes(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Job ids, with when the wish was stored.
    wished: HashMap<String, u64>,
    /// Jobs that are worked, by their own id and that of the whole.
    worked: HashMap<String, Vec<CancellationToken>>,
}

impl Wishes {
    pub(super) fn heard(&self, stored: &Stored) {
        let Some(id) = stored.message.subject.strip_prefix(PREFIX) else { return };
        let mut known = lock(&self.0);
        if known.wished.len() >= MANY && known.wished.len().is_power_of_two() {
            let oldest = stored.timestamp.saturating_sub(WISH_DAYS * 24 * 60 * 60 * 1_000_000_000);
            known.wished.retain(|_, at| *at > oldest);
        }
        known.wished.insert(id.to_owned(), stored.timestamp);
        for token in known.worked.get(id).into_iter().flatten() {
            token.cancel();
        }
    }

    /// Somebody wants this job to end, or the whole that it is a part of.
    pub(super) fn concern(&self, queued: &job::QueuedJob) -> bool {
        let known = lock(&self.0);
        !known.wished.is_empty() && ids(queued).any(|id| known.wished.contains_key(id))
    }

    /// A job is worked, by any of these ids, until this is dropped. Its token is cancelled when somebody wishes so, or has.
    pub(super) fn attend(&self, queued: &job::QueuedJob) -> Attending {
        let ids: Vec<String> = ids(queued).cloned().collect();
        let token = CancellationToken::new();
        let mut known = lock(&self.0);
        if ids.iter().any(|id| known.wished.contains_key(id)) {
            token.cancel();
        }
        for id in &ids {
            known.worked.entry(id.clone()).or_default().push(token.clone());
        }
        drop(known);
        Attending { known: self.0.clone(), ids, token }
    }
}

/// Hears of wishes while a job is worked.
#[derive(Debug)]
pub(super) struct Attending {
    known: Arc<Mutex<Known>>,
    ids: Vec<String>,
    pub(super) token: CancellationToken,
}

impl Drop for Attending {
    fn drop(&mut self) {
        // Those that were cancelled are another's no less.
        self.token.cancel();
        let mut known = lock(&self.known);
        for id in &self.ids {
            if let Some(tokens) = known.worked.get_mut(id) {
                tokens.retain(|token| !token.is_cancelled());
                if tokens.is_empty() {
                    known.worked.remove(id);
                }
            }
        }
    }
}

fn ids(queued: &job::QueuedJob) -> impl Iterator<Item = &String> {
    [Some(&queued.id), queued.parent.as_ref().map(|parent| &parent.id)].into_iter().flatten()
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{job::Parent, testing};

    fn wish(id: &str) -> Stored {
        Stored { message: message(id), sequence: 1, timestamp: 1 }
    }

    #[test]
    fn a_wish_reaches_those_who_work_and_those_who_begin_later() {
        let wishes = Wishes::default();
        let queued = testing::job(&["a"]);
        let other = job::QueuedJob { id: "p_low_01234567_other".into(), ..testing::job(&["a"]) };
        let (working, untouched) = (wishes.attend(&queued), wishes.attend(&other));
        assert!(!working.token.is_cancelled());
        wishes.heard(&wish(&queued.id));
        assert!(working.token.is_cancelled() && !untouched.token.is_cancelled());
        assert!(wishes.attend(&queued).token.is_cancelled());
        drop((working, untouched));
        assert!(lock(&wishes.0).worked.is_empty());
    }

    #[test]
    fn a_wish_for_the_whole_reaches_all_its_parts() {
        let wishes = Wishes::default();
        let part = |own: &str| job::QueuedJob {
            id: format!("p_low_01234567_{own}"),
            parent: Some(Parent { id: "p_low_01234567_x".into(), agents: 2, submitted: 1 }),
            ..testing::job(&["a"])
        };
        let parts = [wishes.attend(&part("x-a0")), wishes.attend(&part("x-a1"))];
        wishes.heard(&wish("p_low_01234567_x"));
        assert!(parts.iter().all(|part| part.token.is_cancelled()));
    }
}
