//! The commit of an event: what is checked first, and which way it goes. The ways are [`cell`], [`record`] and
//! [`publish`]; [`batch`] takes other cells along; [`apply`] makes effects visible; only [`store`] acks, and only what is applied.

mod acked;
pub(in crate::nats) mod apply;
mod batch;
mod cell;
mod expiry;
pub(in crate::nats) mod format;
mod lookup;
mod publish;
pub(in crate::nats) mod record;
pub(in crate::nats) mod store;

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use apply::Ready;
pub(super) use batch::Open;
pub(super) use lookup::Lookups;
use tokio::sync::OwnedMutexGuard;

use super::{NatsBus, publish::check_size};
use crate::{
    api::{Change, Committed, Delivery, Message, Opened, OtherCell, Point, Snapshot},
    change,
    error::{CommitError, Error},
    outgoing::check_subject,
};

pub(super) async fn open(bus: &NatsBus, delivery: &Delivery, point: &Point) -> Result<Opened, Error> {
    match point {
        Point::Cell { space, cell } => cell::open(bus, delivery, space, cell).await,
        Point::Record => record::open(bus, delivery).await,
        Point::Publish => publish::open(bus, delivery).await,
    }
}

/// Another cell than the event's own.
pub(super) async fn other_cell(bus: &NatsBus, space: &str, cell: &str) -> Result<OtherCell, Error> {
    cell::other(bus, space, cell).await
}

/// The same, as it is.
pub(super) async fn peek_cell(bus: &NatsBus, space: &str, cell: &str) -> Result<OtherCell, Error> {
    cell::peek(bus, space, cell).await
}

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    base: Snapshot,
    mut change: Change,
) -> Result<Committed, CommitError> {
    let ready = check(bus, delivery.id(), &base.point, &change).await?;
    #[cfg(debug_assertions)]
    crate::broken::ack_first(delivery).await;
    // Set and cancelled at once: it is never to fire, however long applying takes.
    let Change { timers, cancels, .. } = &mut change;
    timers.retain(|timer| !cancels.contains(&timer.id));
    // Many events wait here, each with the room that its own way takes.
    match &base.point {
        Point::Cell { .. } => Box::pin(cell::commit(bus, delivery, &base, change, ready)).await,
        Point::Record => Box::pin(record::commit(bus, delivery, change, ready)).await,
        Point::Publish => Box::pin(publish::commit(bus, delivery, change, ready)).await,
    }
}

/// What a timer or a cancellation weighs besides its id and message, in bytes.
const FIELDS: u64 = 32;

/// What one commit may weigh, in bytes.
pub(super) fn max_size(bus: &NatsBus) -> usize {
    usize::try_from(store::max_commit(bus)).unwrap_or(usize::MAX)
}

/// What can be known to be wrong before anything happens. Gives the effects as they will be sent.
async fn check(
    bus: &NatsBus,
    delivery: &str,
    point: &Point,
    change: &Change,
) -> Result<Vec<Ready>, CommitError> {
    change::check(point, change)?;
    let event = change.cause(delivery);
    let mut ready = Vec::with_capacity(change.effects.len());
    for (ordinal, effect) in change.effects.iter().enumerate() {
        ready.push(check_message(bus, event, &change.id(delivery, ordinal), effect).await?);
    }
    let mut total: u64 = ready.iter().map(|effect| effect.weight).sum();
    for timer in &change.timers {
        let weight = check_message(bus, event, &timer.id, &timer.message).await?.weight;
        total += weight + timer.id.len() as u64 + FIELDS;
    }
    total += change.cancels.iter().map(|id| id.len() as u64 + FIELDS).sum::<u64>();
    let max = store::max_commit(bus);
    if total > max && *point != Point::Publish {
        return Err(CommitError::Unfit(format!(
            "effects of {total} bytes together are over the limit of {max} for one commit"
        )));
    }
    Ok(ready)
}

/// A message to be stored with this id, now or later.
async fn check_message(
    bus: &NatsBus,
    event: &str,
    id: &str,
    message: &Message,
) -> Result<Ready, CommitError> {
    let unfit = |e: Error| CommitError::Unfit(e.to_string());
    check_subject(&message.subject).map_err(unfit)?;
    let ready = Ready::new(message, event, id).map_err(unfit)?;
    let mut backoff = super::link::Backoff::new();
    loop {
        match bus.streams.covering(&bus.link, &message.subject).await {
            Ok(Some(facts)) => {
                check_size(&bus.link, &facts, &message.subject, ready.weight).map_err(unfit)?;
                return Ok(ready);
            }
            Ok(None) => return Err(unfit(Error::NoStream { subject: message.subject.clone() })),
            Err(e) if e.is_passing() => backoff.wait().await,
            Err(e) => return Err(CommitError::Bus(e.into())),
        }
    }
}

/// Random, to tell one run's write from another's.
fn run_mark() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// Cells whose effects this process knows to be applied, by subject, with the revision. Only a help: what is forgotten is
/// applied again, to no effect but that who listens without a stream hears it twice.
#[derive(Debug, Default)]
pub(super) struct Applied {
    revisions: Mutex<HashMap<String, u64>>,
    turns: Mutex<HashMap<String, Weak<Turn>>>,
}

type Turn = tokio::sync::Mutex<()>;

impl Applied {
    const MAX: usize = 1 << 16;

    /// Whoever applies a cell's effects has this: a reader comes after the commit that it has read, and finds it applied.
    async fn turn(&self, subject: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= Self::MAX {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            let known = turns.get(subject).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(Turn::default());
                turns.insert(subject.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    fn note(&self, subject: &str, revision: u64) {
        let mut known = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MAX && !known.contains_key(subject) {
            known.clear();
        }
        known.insert(subject.to_owned(), revision);
    }

    /// Revisions begin anew.
    fn forget(&self) {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The newest revision of which that is known. After a stream was made anew it may be of the one before, and higher.
    fn noted(&self, subject: &str) -> Option<u64> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(subject).copied()
    }
}
