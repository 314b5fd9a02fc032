//! What is recorded of a `once` call: one message of our stream for each key, `cd.a.<event>.<key>`. The answer is written
//! there, once, before the guest sees it; before the call is sent, an intent: the claim of the run that sends it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message, Publish, Stored, subject};

/// How long an answer is kept: longer than an event is tried, or redriven by somebody who comes back from a weekend.
const KEPT: &str = "604800s";
const KIND: &str = "Cofferdam-Once";
const CALL: &str = "Cofferdam-Call";
/// What is left of an event's time when a record is given up: the guest is to learn of it, and to say so.
const SPARED: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The record of one call.
pub(super) struct Record {
    bus: Arc<dyn Bus>,
    subject: String,
    /// `<upstream>/<method>`, for whoever looks into the stream.
    call: String,
    deadline: Instant,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nobody has begun the call, or it is known not to have been done.
    Nothing,
    /// Somebody has begun the call; the mark says who.
    Intent(String),
    Answer(Bytes),
    /// The upstream has done it; its answer is not recorded, and the text says why.
    Unrecordable(String),
}

/// An entry and the revision that the next one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) entry: Entry,
    pub(super) revision: u64,
    /// When it was written, in nanoseconds since the epoch; 0: just now, or never.
    at: u64,
}

impl Known {
    pub(super) fn nothing() -> Self {
        Self { entry: Entry::Nothing, revision: 0, at: 0 }
    }
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// In all the time there was.
    #[error("{0}")]
    OutOfReach(Error),
    #[error("{0}")]
    TooLarge(Error),
    #[error("{0}")]
    Bus(Error),
}

impl Record {
    /// Of an event `<origin>.<sequence>`. Waits for the bus until shortly before the event's deadline.
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        event: &str,
        key: &str,
        call: String,
        deadline: Instant,
    ) -> Result<Self, Trouble> {
        let subject = format!("cd.a.{event}.{key}");
        if !event.split('.').chain([key]).all(subject::is_plain_token) {
            return Err(Trouble::Bus(Error::InvalidSubject(subject)));
        }
        let deadline = deadline.checked_sub(SPARED).unwrap_or(deadline);
        Ok(Self { bus, subject, call, deadline })
    }

    /// What is recorded now, by the stream's leader.
    pub(super) async fn look(&self) -> Result<Known, Trouble> {
        let mut pause = FIRST_PAUSE;
        loop {
            match within(self.deadline, self.bus.last(&self.subject)).await {
                Ok(None) => return Ok(Known::nothing()),
                Ok(Some(stored)) => return self.read(stored),
                Err(error @ Error::Unavailable(_)) => self.wait(&mut pause, error).await?,
                Err(error) => return Err(Trouble::Bus(error)),
            }
        }
    }

    /// Replaces what was seen, or else tells what has replaced it. The outcome is known then; a write of which nobody
    /// knows whether it happened is looked for, and repeated as it was.
    pub(super) async fn replace(&self, revision: u64, entry: &Entry) -> Result<Known, Trouble> {
        let message = self.message(entry);
        let mut pause = FIRST_PAUSE;
        loop {
            let how = Publish { expected_last_subject_sequence: Some(revision), ..Publish::default() };
            match within(self.deadline, self.bus.publish(message.clone(), how)).await {
                Ok(ack) => return Ok(Known { entry: entry.clone(), revision: ack.sequence, at: 0 }),
                // Somebody else, or this very write when its answer was lost.
                Err(Error::WrongLastSequence { .. }) => {
                    let known = self.look().await?;
                    if known.revision != revision {
                        return Ok(known);
                    }
                    // The refusal was another write's, which has failed.
                    self.wait(&mut pause, Error::Unavailable("the record is being written".into())).await?;
                }
                Err(error @ Error::Unavailable(_)) => {
                    self.wait(&mut pause, error).await?;
                    let known = self.look().await?;
                    if known.revision != revision {
                        return Ok(known);
                    }
                }
                Err(error @ Error::TooLarge { .. }) => return Err(Trouble::TooLarge(error)),
                Err(error) => return Err(Trouble::Bus(error)),
            }
        }
    }

    /// Waits for what becomes of another run's claim, or until that is as old as this.
    pub(super) async fn outwait(&self, claim: Known, patience: Duration) -> Result<Known, Trouble> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            // By the bus's clock and ours, or since we know of it: the longer of the two.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let age = now.saturating_sub(Duration::from_nanos(claim.at)).max(began.elapsed());
            if age >= patience {
                return Ok(claim);
            }
            self.wait(&mut pause, Error::Unavailable("another run of the event is at this call".into()))
                .await?;
            let known = self.look().await?;
            if known.revision != claim.revision {
                return Ok(known);
            }
        }
    }

    async fn wait(&self, pause: &mut Duration, error: Error) -> Result<(), Trouble> {
        if Instant::now() + *pause >= self.deadline {
            return Err(Trouble::OutOfReach(error));
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn message(&self, entry: &Entry) -> Message {
        let (kind, data) = match entry {
            Entry::Nothing => ("nothing", Bytes::new()),
            Entry::Intent(mark) => ("intent", Bytes::from(mark.clone())),
            Entry::Answer(answer) => ("answer", answer.clone()),
            Entry::Unrecordable(why) => ("unrecordable", Bytes::from(why.clone())),
        };
        let headers = [(KIND, kind), (CALL, self.call.as_str()), ("Nats-TTL", KEPT)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Message { subject: self.subject.clone(), headers, data }
    }

    fn read(&self, stored: Stored) -> Result<Known, Trouble> {
        let Message { headers, data, .. } = stored.message;
        let kind = headers.iter().find(|(name, _)| name == KIND).map(|(_, value)| value.as_str());
        let text = || String::from_utf8_lossy(&data).into_owned();
        let entry = match kind {
            Some("nothing") => Entry::Nothing,
            Some("intent") => Entry::Intent(text()),
            Some("answer") => Entry::Answer(data),
            Some("unrecordable") => Entry::Unrecordable(text()),
            other => {
                let reason = format!("{KIND} is {other:?}");
                return Err(Trouble::Bus(Error::Unreadable { subject: self.subject.clone(), reason }));
            }
        };
        Ok(Known { entry, revision: stored.sequence, at: stored.timestamp })
    }
}

/// What the bus has not answered by then has an unknown outcome.
async fn within<T>(deadline: Instant, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let silent = || Err(Error::Unavailable("no answer in the time of the event".into()));
    tokio::time::timeout_at(deadline.into(), asked).await.unwrap_or_else(|_| silent())
}
