//! What has been fetched from a durable and waits for whoever takes it; and how much of it is wanted.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{acks::Acks, deliveries::Task};
use crate::{
    api::{Delivery, Origin},
    error::Error,
};

/// The taker has not said how many it wants: as many as come.
const ALL: usize = usize::MAX;

/// What the taker and the task share.
pub(super) struct Shared {
    pub(super) origin: Arc<Origin>,
    /// With each delivery the means to keep it ours.
    queue: Mutex<VecDeque<(Delivery, Acks)>>,
    /// How many more may be taken. Changes under the lock of the queue.
    wanted: AtomicUsize,
    /// The task put something into the queue, or has ended.
    pub(super) filled: Notify,
    /// The taker took something, or wants another number.
    pub(super) taken: Notify,
    ended: Mutex<Option<Error>>,
}

impl Shared {
    /// `all`: until another number is said.
    pub(super) fn new(origin: &Arc<Origin>, all: bool) -> Shared {
        Shared {
            origin: origin.clone(),
            queue: Mutex::default(),
            wanted: AtomicUsize::new(if all { ALL } else { 0 }),
            filled: Notify::new(),
            taken: Notify::new(),
            ended: Mutex::default(),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, VecDeque<(Delivery, Acks)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, Option<Error>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    pub(super) fn want(&self, count: usize) {
        let queue = self.queue();
        self.wanted.store(count, Ordering::Release);
        drop(queue);
        self.taken.notify_one();
    }

    /// The next, if one more is wanted.
    pub(super) fn take(&self) -> Option<Delivery> {
        let mut queue = self.queue();
        let wanted = self.wanted();
        if wanted == 0 {
            return None;
        }
        let (delivery, _) = queue.pop_front()?;
        if wanted != ALL {
            self.wanted.store(wanted - 1, Ordering::Release);
        }
        drop(queue);
        self.taken.notify_one();
        Some(delivery)
    }

    /// Those beyond what is wanted, the newest.
    fn surplus(&self) -> VecDeque<(Delivery, Acks)> {
        let mut queue = self.queue();
        let wanted = self.wanted().min(queue.len());
        queue.split_off(wanted)
    }
}

impl Task {
    /// Hands back what is here and not wanted. Tells whether with what is left more is asked for than is wanted: the server
    /// forgets what it was asked for when the subject is gone to which the answers would come.
    pub(super) async fn asks_for_too_much(&mut self) -> bool {
        for (delivery, _) in self.shared.surplus() {
            if let Err(e) = delivery.nak(None).await {
                tracing::debug!(%e, "not handed back");
            }
        }
        self.expected > 0 && self.shared.queue().len().saturating_add(self.expected) > self.shared.wanted()
    }
}
