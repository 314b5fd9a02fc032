//! What became of deliveries that come to this host again: attempts that failed and were not committed, and times that they
//! were handed back. A delivery that ended with the host leaves no trace here, so it uses up no attempt.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::again::Times;

/// Another host may have finished the event: what is older is forgotten, looked after once so many are kept.
const KEEP: Duration = Duration::from_secs(2 * 3600);
const MANY: usize = 10_000;

/// By the id of the delivery.
#[derive(Default)]
pub(super) struct Endings(Mutex<HashMap<String, Ended>>);

#[derive(Clone, Copy)]
struct Ended {
    failed: u32,
    /// Deliveries that are accounted for: this one's count, and with it those before.
    deliveries: u32,
    times: Times,
    last: Instant,
}

impl Endings {
    /// Attempts of the delivery that failed on this host.
    pub(super) fn failures(&self, delivery: &str) -> u32 {
        self.lock().get(delivery).map_or(0, |ended| ended.failed)
    }

    /// When they did.
    pub(super) fn times(&self, delivery: &str) -> Option<Times> {
        self.lock().get(delivery).filter(|ended| ended.failed > 0).map(|ended| ended.times)
    }

    /// Deliveries that are accounted for.
    pub(super) fn count(&self, delivery: &str) -> u32 {
        self.lock().get(delivery).map_or(0, |ended| ended.deliveries)
    }

    /// An attempt failed.
    pub(super) fn failed(&self, delivery: &str, times: Times) {
        self.note(delivery, |ended| {
            ended.failed += 1;
            ended.times = times;
        });
    }

    /// The delivery with this count is given back.
    pub(super) fn handed_back(&self, delivery: &str, count: u32) {
        self.note(delivery, |ended| ended.deliveries = count.max(ended.deliveries + 1));
    }

    /// The delivery is settled.
    pub(super) fn over(&self, delivery: &str) {
        self.lock().remove(delivery);
    }

    fn note(&self, delivery: &str, add: impl FnOnce(&mut Ended)) {
        let mut all = self.lock();
        if all.len() >= MANY {
            all.retain(|_, ended| ended.last.elapsed() < KEEP);
            if all.len() >= MANY {
                // So much fails that attempts can't be told any more; more of them is the safe side.
                all.clear();
            }
        }
        let fresh = Ended { failed: 0, deliveries: 0, times: Times::default(), last: Instant::now() };
        let ended = all.entry(delivery.to_owned()).or_insert(fresh);
        ended.last = Instant::now();
        add(ended);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_use_up_attempts() {
        let endings = Endings::default();
        endings.handed_back("e", 1);
        assert_eq!(endings.times("e"), None);
        let times = Times::default().seen(1).failed(2);
        endings.failed("e", times);
        assert_eq!((endings.failures("e"), endings.count("e"), endings.times("e")), (1, 1, Some(times)));
        endings.over("e");
        assert_eq!((endings.failures("e"), endings.count("e")), (0, 0));
    }

    #[test]
    fn a_delivery_that_ends_here_accounts_for_those_before_it() {
        let endings = Endings::default();
        endings.handed_back("e", 7);
        assert_eq!(endings.count("e"), 7);
        // A server that was killed counts from 1 again.
        endings.handed_back("e", 1);
        assert_eq!(endings.count("e"), 8);
    }

    #[test]
    fn memory_is_bounded() {
        let endings = Endings::default();
        for n in 0..MANY + 10 {
            endings.handed_back(&n.to_string(), 1);
        }
        assert!(endings.lock().len() <= MANY);
    }
}
