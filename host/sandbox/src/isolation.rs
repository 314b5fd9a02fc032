//! How far runs are kept apart, and where instances wait for their next event. What a run leaves in an instance, and
//! when that ends it, is in `instance`.
//!
//! Whoever runs holds a permit, whatever lives holds a [`Slot`]: there are as many of each as the engine's pool has
//! places. An idle instance holds a slot and no permit, so whoever has a permit and finds no slot free has the oldest
//! idle instance's: none keeps another plugin waiting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::instance::Instance;

/// How many events and requests an instance of a plugin has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// One: nothing that a guest keeps outlives its event.
    #[default]
    Event,
    /// Up to `events` (at least 1), requests among them, one after another, as long as each run ends with `Ok`: what a guest
    /// keeps in its memory, later events and requests of the same plugin find there.
    Batch { events: u32 },
}

impl Isolation {
    /// Events of a batch unless somebody says otherwise: making the instance is then below a hundredth of what a warm
    /// call costs, and a guest that leaks does it for less than a second.
    pub const BATCH_EVENTS: u32 = 1_000;
}

/// The places that the engine's pool has, and who is in them.
pub(crate) struct Pool {
    permits: Semaphore,
    /// Slots taken: instances that run, are idle, or are being dropped.
    live: AtomicU32,
    most: u32,
    /// Of each plugin whose instances serve batches.
    idle: Mutex<Vec<Weak<Idle>>>,
}

impl Pool {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        let permits = usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            permits: Semaphore::new(permits),
            live: AtomicU32::new(0),
            most,
            idle: Mutex::default(),
        })
    }

    /// To run, for as long as it is held. Nothing but the semaphore's end gives none, and it has no end.
    pub(crate) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// A place for an instance, for the holder of a permit who has none: the others hold fewer permits than there are
    /// places, so either one is free, or an idle instance is in it, or an instance is just being dropped.
    pub(crate) async fn slot(self: &Arc<Self>) -> Slot {
        loop {
            if let Some(slot) = self.free_slot() {
                return slot;
            }
            if let Some(oldest) = self.evict() {
                return oldest.into_slot();
            }
            tokio::task::yield_now().await;
        }
    }

    fn free_slot(self: &Arc<Self>) -> Option<Slot> {
        let more = |live: u32| (live < self.most).then_some(live + 1);
        self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Slot { pool: self.clone() })
    }

    /// The instance that has been idle for longest, whichever plugin's. It may be gone by the time it is found.
    fn evict(&self) -> Option<Instance> {
        let all = self.all_idle();
        let oldest =
            all.iter().filter_map(|idle| Some((idle.oldest()?, idle))).min_by_key(|(since, _)| *since);
        oldest?.1.take_oldest(Instant::now())
    }

    /// Drops the instances that have been idle for so long.
    pub(crate) fn drop_idle(&self, longer_than: Duration) {
        let Some(before) = Instant::now().checked_sub(longer_than) else { return };
        for idle in self.all_idle() {
            while let Some(instance) = idle.take_oldest(before) {
                drop(instance);
            }
        }
    }

    fn all_idle(&self) -> Vec<Arc<Idle>> {
        lock(&self.idle).iter().filter_map(Weak::upgrade).collect()
    }

    #[cfg(test)]
    pub(crate) fn free_permits(&self) -> usize {
        self.permits.available_permits()
    }

    #[cfg(test)]
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }
}

/// A place in the pool; free again when this is dropped.
pub(crate) struct Slot {
    pool: Arc<Pool>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.live.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A plugin's instances that wait for an event: the last to come is the first to go, so that those which the load does
/// not need grow old.
#[derive(Default)]
pub(crate) struct Idle {
    instances: Mutex<VecDeque<(Instant, Instance)>>,
}

impl Idle {
    pub(crate) fn new(pool: &Pool) -> Arc<Self> {
        let idle = Arc::new(Self::default());
        let mut all = lock(&pool.idle);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&idle));
        idle
    }

    pub(crate) fn take(&self) -> Option<Instance> {
        lock(&self.instances).pop_back().map(|(_, instance)| instance)
    }

    pub(crate) fn put(&self, instance: Instance) {
        lock(&self.instances).push_back((Instant::now(), instance));
    }

    fn oldest(&self) -> Option<Instant> {
        lock(&self.instances).front().map(|(since, _)| *since)
    }

    /// If it has been idle since before this.
    fn take_oldest(&self, before: Instant) -> Option<Instance> {
        let mut instances = lock(&self.instances);
        instances.pop_front_if(|(since, _)| *since <= before).map(|(_, instance)| instance)
    }
}

/// Nothing that is done under these locks leaves anything half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
