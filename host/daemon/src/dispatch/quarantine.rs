//! Events that may be what kills the host. One that was delivered often and never came to an end runs alone, and its runs are
//! counted durably: only what dies alone is convicted, never what was merely in flight beside it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Delivery, Error, Message, Publish, Start};

/// Deliveries without an end that are nothing special: restarts, drains, a host that was slow.
const INNOCENT: u32 = 3;
/// The count outlives its last change by so long: an event that was left alone for a week begins anew.
const TTL: &str = "604800s";
/// What a host on its way out spends on telling that it was no death.
const UNDOING: Duration = Duration::from_secs(2);

fn subject(delivery: &Delivery) -> String {
    format!("cd.q.{}", delivery.id())
}

/// Events of one durable that are known to have run alone, and not to their end. A server that was killed may count its
/// deliveries from 1 again; this does not.
#[derive(Default)]
pub(super) struct Suspects(Mutex<HashSet<String>>);

impl Suspects {
    /// Reads who is suspected by now.
    pub(super) async fn load(&self, bus: &Arc<dyn Bus>, origin: &str) -> Result<(), Error> {
        let filter = format!("cd.q.{origin}.*");
        let Some(stream) = bus.covering(&filter).await? else { return Ok(()) };
        let mut counts = bus.read(&stream.name, &filter, Start::Sequence(0)).await?;
        while let Some(stored) = counts.stored().await? {
            let id = stored.message.subject.strip_prefix("cd.q.");
            if let Some(id) = id.filter(|_| count(&stored.message.data) > 0) {
                self.lock().insert(id.to_owned());
            }
        }
        Ok(())
    }

    /// Is it to run alone? `ended` of its deliveries came to an end on this host.
    pub(super) fn holds(&self, delivery: &Delivery, ended: u32) -> bool {
        delivery.count.saturating_sub(ended) > INNOCENT || self.lock().contains(delivery.id())
    }

    /// An end is known.
    pub(super) fn clear(&self, delivery: &Delivery) {
        self.lock().remove(delivery.id());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runs of one suspect that have begun and not come to an end.
pub(super) struct Solo<'a> {
    bus: &'a Arc<dyn Bus>,
    delivery: &'a Delivery,
    counted: Mutex<Counted>,
}

/// Whether the run that goes on now is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Counted {
    #[default]
    No,
    /// An answer is missing.
    Perhaps,
    /// By the message of this sequence.
    Yes(u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Run,
    /// So many runs ended with their host.
    Deadly(u32),
}

impl<'a> Solo<'a> {
    pub(super) fn new(bus: &'a Arc<dyn Bus>, delivery: &'a Delivery) -> Self {
        Self { bus, delivery, counted: Mutex::default() }
    }

    /// Counts the run that is about to begin, once, unless there were too many.
    pub(super) async fn begin(&self, most: u32) -> Result<Verdict, Error> {
        if matches!(*self.counted(), Counted::Yes(_)) {
            return Ok(Verdict::Run);
        }
        loop {
            let last = self.bus.last(&subject(self.delivery)).await?;
            let (before, expected) = last.map_or((0, 0), |last| (count(&last.message.data), last.sequence));
            if before >= most {
                return Ok(Verdict::Deadly(before));
            }
            *self.counted() = Counted::Perhaps;
            match self.write(before + 1, expected).await {
                Ok(sequence) => {
                    *self.counted() = Counted::Yes(sequence);
                    return Ok(Verdict::Run);
                }
                // Another host has the event, too, or an answer was lost.
                Err(Error::WrongLastSequence { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The host outlived the run, whatever came of it: it counts from 0 again. Where that can't be written now, the count
    /// is one too high, which an innocent event can bear.
    pub(super) async fn undo(&self) {
        let counted = std::mem::take(&mut *self.counted());
        let undoing = async {
            let expected = match counted {
                Counted::No => return Ok(()),
                Counted::Yes(sequence) => sequence,
                Counted::Perhaps => {
                    self.bus.last(&subject(self.delivery)).await?.map_or(0, |last| last.sequence)
                }
            };
            self.write(0, expected).await.map(|_| ())
        };
        match tokio::time::timeout(UNDOING, undoing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(event = self.delivery.id(), "its run alone still counts: {error}")
            }
            Err(_) => tracing::debug!(event = self.delivery.id(), "its run alone still counts: no answer"),
        }
    }

    async fn write(&self, count: u32, expected: u64) -> Result<u64, Error> {
        let message = Message {
            subject: subject(self.delivery),
            headers: vec![("Nats-TTL".to_owned(), TTL.to_owned())],
            data: Bytes::from(count.to_string()),
        };
        let how = Publish { expected_last_subject_sequence: Some(expected), ..Publish::default() };
        Ok(self.bus.publish(message, how).await?.sequence)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no number counts for nothing: it convicts nobody.
fn count(data: &Bytes) -> u32 {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
