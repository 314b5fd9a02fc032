//! Putting a question's job on its queue, and waiting for its record. Other runs of the event, here and on other hosts, may do
//! the same at the same time: a job is stored once, and what is recorded of it is the answer to all.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Listener, Message, Publish};
use cofferdam_sandbox::{Completion, JobPhase};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{super::Services, ask::Asked};
use crate::{
    executor::{
        job::{self, QueuedJob},
        status::{self, Answer, Record},
    },
    observe::trace,
};

/// Of one question, over all runs of its event.
const MAX_TRIES: u32 = 100;
/// Between two looks at the record, where nothing is heard of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What is heard may not be stored yet.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Whoever works a job ends it at its deadline: so long it may take them to say so.
const GRACE: Duration = Duration::from_secs(2);
const MANY_TRIES: &str = "it was asked too often";

/// How a question ended for this run.
pub(super) type Ended = Result<Completion, NoAnswer>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Failed {
        kind: String,
        message: String,
    },
    /// The run's time is over. An earlier run had asked the same: or else every run may ask something else, for ever.
    OutOfTime {
        why: String,
        asked_before: bool,
    },
    Bus(Error),
}

/// A job that is on its queue, or answered.
pub(super) enum Begun {
    Over(Completion),
    Follows(Box<Following>),
}

/// Whoever asks: what they need for it, and until when they can wait.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) services: Arc<Services>,
    pub(super) trace: String,
    pub(super) until: Instant,
    /// A worker of which nothing is heard for so long works no more.
    pub(super) lease: Duration,
}

impl Asker {
    /// Asks, and waits for the answer.
    pub(super) async fn answer(&self, asked: &Asked) -> Ended {
        match self.begin(asked).await? {
            Begun::Over(answer) => Ok(answer),
            Begun::Follows(mut following) => loop {
                if let Some(ended) = following.look().await {
                    return ended;
                }
                following.woken().await;
            },
        }
    }

    /// Finds what is recorded of it, or else a job that may be answered yet: one that is there, or a new one. What failed before
    /// now is asked once more.
    pub(super) async fn begin(&self, asked: &Asked) -> Result<Begun, NoAnswer> {
        let bus = &self.services.bus;
        let mut failed = NoAnswer::Failed { kind: "unavailable".into(), message: MANY_TRIES.into() };
        for tries in 0..MAX_TRIES {
            let job = asked.job(tries);
            let record = self.patiently(|| status::record(bus, &job.id)).await?;
            match record.and_then(|record| ended(&job.id, record)) {
                Some(Ok(answer)) => return Ok(Begun::Over(answer)),
                Some(Err(error)) => {
                    failed = error;
                    continue;
                }
                None => {}
            }
            // Before there is anything to hear.
            let (record, tokens) = (status::subject(&job.id), super::tokens::subject(&job.id));
            let heard = self.patiently(|| bus.listen(&record)).await?;
            let tokens = match job.stream {
                true => Some(self.patiently(|| bus.listen(&tokens)).await?),
                false => None,
            };
            let (is_new, age) = self.submit(asked, &job).await?;
            if age > asked.patience + self.lease {
                failed = overdue(&job.id);
                continue;
            }
            let now = Instant::now();
            return Ok(Begun::Follows(Box::new(Following {
                bus: bus.clone(),
                id: job.id,
                asked_before: !is_new,
                heard: Some(heard),
                tokens,
                next_look: now,
                pause: LONGEST_PAUSE,
                ends: now + asked.patience.saturating_sub(age) + GRACE,
                until: self.until,
            })));
        }
        Err(failed)
    }

    /// Stores the job, unless it is there: then it has an age.
    async fn submit(&self, asked: &Asked, job: &QueuedJob) -> Result<(bool, Duration), NoAnswer> {
        let Services { bus, queues, .. } = &*self.services;
        let no_job = |reason: String| NoAnswer::Bus(Error::Unreadable { subject: job.id.clone(), reason });
        let place = job::subject(&job.id).ok_or_else(|| no_job("it can't be the id of a job".into()))?;
        let body = serde_json::to_vec(job).map_err(|error| no_job(error.to_string()))?;
        let headers = vec![job::header(), (trace::HEADER.to_owned(), self.trace.clone())];
        let message = Message { subject: place.clone(), headers, data: Bytes::from(body) };
        let is_new = self
            .patiently(|| async {
                queues.announce(&asked.queue).await?;
                let how = Publish { expected_last_subject_sequence: Some(0), ..Publish::default() };
                match bus.publish(message.clone(), how).await {
                    Ok(_) => Ok(true),
                    Err(Error::WrongLastSequence { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        if is_new {
            return Ok((true, Duration::ZERO));
        }
        let stored = self.patiently(|| bus.last(&place)).await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = stored.map(|stored| now.saturating_sub(Duration::from_nanos(stored.timestamp)));
        Ok((false, age.unwrap_or_default()))
    }

    /// Waits for a bus that is out of reach as long as there is time.
    async fn patiently<T, F>(&self, mut asked: impl FnMut() -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match timeout_at(self.until, asked()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error @ Error::Unavailable(_))) => error.to_string(),
                Ok(Err(error)) => return Err(NoAnswer::Bus(error)),
                Err(_) => "the bus did not answer in the event's time".into(),
            };
            if Instant::now() + pause >= self.until {
                return Err(NoAnswer::OutOfTime { why, asked_before: false });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// A job that is waited for.
pub(super) struct Following {
    bus: Arc<dyn Bus>,
    id: String,
    asked_before: bool,
    heard: Option<Box<dyn Listener>>,
    /// Where its tokens are told, if they are wanted.
    pub(super) tokens: Option<Box<dyn Listener>>,
    next_look: Instant,
    pause: Duration,
    /// By then it has ended, if anybody works it.
    ends: Instant,
    until: Instant,
}

impl Following {
    /// Waits for a reason to look. It may be dropped and begun again.
    pub(super) async fn woken(&mut self) {
        let heard = async {
            match &mut self.heard {
                Some(heard) => heard.next().await,
                None => pending().await,
            }
        };
        tokio::select! {
            heard = heard => match heard {
                Ok(_) => {
                    self.pause = FIRST_PAUSE;
                    self.next_look = Instant::now();
                }
                Err(_) => self.heard = None,
            },
            () = sleep_until(self.next_look.min(self.ends).min(self.until)) => {}
        }
    }

    /// How it ended, if it has, or if nobody waits for it any longer.
    pub(super) async fn look(&mut self) -> Option<Ended> {
        let mut last = String::new();
        match timeout_at(self.until, status::record(&self.bus, &self.id)).await {
            Ok(Ok(record)) => {
                if let Some(ended) = record.and_then(|record| ended(&self.id, record)) {
                    return Some(ended);
                }
            }
            // It may be back in time.
            Ok(Err(Error::Unavailable(why))) => last = format!(" ({why})"),
            Ok(Err(error)) => return Some(Err(NoAnswer::Bus(error))),
            Err(_) => {}
        }
        let now = Instant::now();
        if now >= self.ends {
            return Some(Err(overdue(&self.id)));
        }
        if now >= self.until {
            let why = format!(
                "the job {} has no answer yet{last}, and the event's time is over; it goes on, and the event's next run finds \
                 the answer",
                self.id
            );
            return Some(Err(NoAnswer::OutOfTime { why, asked_before: self.asked_before }));
        }
        self.next_look = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }
}

fn overdue(id: &str) -> NoAnswer {
    let message = format!(
        "nobody has ended the job {id} by its deadline; see whether a worker runs (cofferdam executor) that serves its \
         model"
    );
    NoAnswer::Failed { kind: "timeout".into(), message }
}

/// How a job ended, if it has.
fn ended(id: &str, record: Record) -> Option<Ended> {
    let Record { phase, error, kind, answer, tokens_in, tokens_out, .. } = record;
    let failed = |kind: &str, message: String| Err(NoAnswer::Failed { kind: kind.to_owned(), message });
    match phase {
        JobPhase::Unknown | JobPhase::Queued | JobPhase::Running => None,
        JobPhase::Done => Some(match answer {
            Some(Answer { text, reasoning, model, finish, cached, .. }) => {
                Ok(Completion { text, reasoning, model, finish, tokens_in, tokens_out, cached })
            }
            None => failed("empty", format!("the job {id} is done, and its answer is not recorded")),
        }),
        JobPhase::Failed => {
            let error = error.unwrap_or_else(|| format!("the job {id} failed"));
            Some(failed(kind.as_deref().unwrap_or("failed"), error))
        }
        JobPhase::Cancelled => {
            let error = error.unwrap_or_else(|| format!("the job {id} was cancelled"));
            Some(failed("cancelled", error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_an_answer_once_its_job_has_ended() {
        let of = |phase| ended("j", Record::new(phase));
        for open in [JobPhase::Unknown, JobPhase::Queued, JobPhase::Running] {
            assert_eq!(of(open), None);
        }
        let answer = Answer { text: "yes".into(), cached: true, ..Answer::default() };
        let done = Record { answer: Some(answer), tokens_out: 3, ..Record::new(JobPhase::Done) };
        let completion =
            Completion { text: "yes".into(), cached: true, tokens_out: 3, ..Completion::default() };
        assert_eq!(ended("j", done), Some(Ok(completion)));
        let kind = |ended: Option<Ended>| match ended {
            Some(Err(NoAnswer::Failed { kind, .. })) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(of(JobPhase::Done)), "empty");
        assert_eq!(kind(of(JobPhase::Failed)), "failed");
        assert_eq!(kind(of(JobPhase::Cancelled)), "cancelled");
        let refused = Record { kind: Some("refused".into()), ..Record::new(JobPhase::Failed) };
        assert_eq!(kind(ended("j", refused)), "refused");
    }
}
