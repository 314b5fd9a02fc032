//! Putting a question's job on its queue, and waiting for its record. Other runs of the event, here and on other hosts, may do
//! the same at the same time: a job is stored once, and what is recorded of it is the answer to all.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cofferdam_bus::{Bus, Error, Listener};
use cofferdam_sandbox::{Completion, JobPhase};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{super::Services, ask::Asked};
use crate::{
    app::LAST_WORD,
    executor::{
        backends::tokens_subject,
        job::{self, QueuedJob},
        queues::Submitted,
        status::{self, Answer, Record},
    },
};

/// Of one question, over all runs of its event.
const MAX_TRIES: u32 = 100;
/// Between two looks at the record, where nothing is heard of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What is heard may not be stored yet.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Whoever works a job ends it at its deadline: so long it may take them to say so.
const GRACE: Duration = Duration::from_secs(2);

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
    /// It was not asked.
    Limit(String),
    Bus(Error),
}

/// A job that is on its queue, or answered.
pub(super) enum Begun {
    Over(Completion),
    Follows(Box<Following>),
}

/// A job on its queue.
struct Stands {
    is_new: bool,
    age: Duration,
    /// How long its answer is waited for, from when it was stored.
    patience: Duration,
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
        let mut tries = 0;
        loop {
            let failed = match self.try_to_begin(asked.job(tries)).await? {
                Ok(begun) => return Ok(begun),
                Err(failed) => failed,
            };
            tries += 1;
            if tries == MAX_TRIES {
                return Err(failed);
            }
        }
    }

    /// Inside: how this try has failed already.
    async fn try_to_begin(&self, job: QueuedJob) -> Result<Result<Begun, NoAnswer>, NoAnswer> {
        let bus = &self.services.bus;
        let record = self.patiently(|| status::record(bus, &job.id)).await?;
        if let Some(ended) = record.and_then(|record| ended(&job.id, record)) {
            return Ok(ended.map(Begun::Over));
        }
        // Before there is anything to hear.
        let (record, tokens) = (status::subject(&job.id), tokens_subject(&job.id));
        let heard = self.patiently(|| bus.listen(&record)).await?;
        let tokens = match job.stream {
            true => Some(self.patiently(|| bus.listen(&tokens)).await?),
            false => None,
        };
        let Stands { is_new, age, patience } = self.submit(&job).await?;
        if age > patience + self.lease {
            return Ok(Err(overdue(&job.id)));
        }
        let now = Instant::now();
        Ok(Ok(Begun::Follows(Box::new(Following {
            bus: bus.clone(),
            id: job.id,
            asked_before: !is_new,
            heard: Some(heard),
            tokens,
            next_look: now,
            pause: LONGEST_PAUSE,
            ends: now + patience.saturating_sub(age) + GRACE,
            until: self.until,
            stop: self.services.stop.clone(),
            stopping: false,
        }))))
    }

    /// Stores the job, unless it is there.
    async fn submit(&self, job: &QueuedJob) -> Result<Stands, NoAnswer> {
        let Services { bus, queues, .. } = &*self.services;
        let submitted = self.patiently(|| queues.submit_now(job, &self.trace)).await?;
        let new = Stands { is_new: true, age: Duration::ZERO, patience: job::patience(&job.job) };
        match submitted {
            Ok(Submitted::New) => return Ok(new),
            Ok(Submitted::Before) => {}
            Err(too_many) => return Err(NoAnswer::Limit(too_many.to_string())),
        }
        let before = Stands { is_new: false, ..new };
        let Some(place) = job::subject(&job.id) else { return Ok(before) };
        let Some(stored) = self.patiently(|| bus.last(&place)).await? else { return Ok(before) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_nanos(stored.timestamp));
        // A run may give another time than the one that asked first, whose job it is.
        let first = serde_json::from_slice::<QueuedJob>(&stored.message.data);
        let patience = first.map_or(before.patience, |first| job::patience(&first.job));
        Ok(Stands { age, patience, ..before })
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
    /// The host stops; perhaps the answer is its own worker's, and does not come any more.
    stop: CancellationToken,
    stopping: bool,
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
            () = self.stop.cancelled(), if !self.stopping => {
                self.stopping = true;
                self.until = self.until.min(Instant::now() + LAST_WORD);
            }
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
            let over = if self.stopping { "the host stops" } else { "the event's time is over" };
            let why = format!(
                "the job {} has no answer yet{last}, and {over}; it goes on, and the event's next run finds the answer",
                self.id
            );
            // A host stops once, so that is no run too many.
            let asked_before = self.asked_before || self.stopping;
            return Some(Err(NoAnswer::OutOfTime { why, asked_before }));
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
    use crate::{
        capabilities::Upstreams,
        executor::{Queues, job::Queue, testing},
        observe::metrics::Metrics,
    };

    #[tokio::test]
    async fn the_time_of_a_question_is_that_of_the_run_that_asked_it_first() {
        let (bus, _folder) = testing::bus().await;
        let asker = Asker {
            services: Arc::new(Services {
                queues: Queues::new(bus.clone()),
                bus,
                upstreams: Upstreams::connect(&std::collections::BTreeMap::new()).unwrap(),
                executor: None,
                metrics: Arc::new(Metrics::new(std::iter::empty()).unwrap()),
                stop: CancellationToken::new(),
            }),
            trace: "00-trace".into(),
            until: Instant::now() + Duration::from_secs(10),
            lease: Duration::ZERO,
        };
        let asked = |seconds| {
            let mut queued = testing::job(&["a"]);
            queued.job.timeout_seconds = seconds;
            queued.id = Queue::of(&queued.plugin, &queued.job).id("x");
            queued
        };
        let first = asker.submit(&asked(100)).await.unwrap();
        assert_eq!((first.is_new, first.patience), (true, Duration::from_secs(100)));
        sleep(Duration::from_millis(1)).await;
        for seconds in [1, 1000] {
            let later = asker.submit(&asked(seconds)).await.unwrap();
            assert_eq!((later.is_new, later.patience), (false, Duration::from_secs(100)));
            assert!(!later.age.is_zero());
        }
    }

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
