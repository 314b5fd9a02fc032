//! How often each event came to an ending on this host: attempts that failed, and times it was handed back. A delivery
//! that ended with the host leaves no trace here, so it uses up no attempt.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Another host may have finished the event: what is older is forgotten, looked after once so many are kept.
const KEEP: Duration = Duration::from_secs(2 * 3600);
const MANY: usize = 10_000;

#[derive(Default)]
pub(super) struct Endings(Mutex<HashMap<String, Ended>>);

#[derive(Clone, Copy)]
struct Ended {
    failed: u32,
    handed_back: u32,
    last: Instant,
}

impl Endings {
    /// The number of the attempt that begins now, from 1.
    pub(super) fn attempt(&self, event: &str) -> u32 {
        self.lock().get(event).map_or(1, |ended| ended.failed + 1)
    }

    /// Deliveries of the event that are accounted for.
    pub(super) fn count(&self, event: &str) -> u32 {
        self.lock().get(event).map_or(0, |ended| ended.failed + ended.handed_back)
    }

    pub(super) fn failed(&self, event: &str) {
        self.note(event, |ended| ended.failed += 1);
    }

    pub(super) fn handed_back(&self, event: &str) {
        self.note(event, |ended| ended.handed_back += 1);
    }

    /// The event is settled.
    pub(super) fn over(&self, event: &str) {
        self.lock().remove(event);
    }

    fn note(&self, event: &str, add: impl FnOnce(&mut Ended)) {
        let mut all = self.lock();
        if all.len() >= MANY {
            all.retain(|_, ended| ended.last.elapsed() < KEEP);
            if all.len() >= MANY {
                // So much fails that attempts can't be told any more; more of them is the safe side.
                all.clear();
            }
        }
        let fresh = Ended { failed: 0, handed_back: 0, last: Instant::now() };
        let ended = all.entry(event.to_owned()).or_insert(fresh);
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
        endings.handed_back("e");
        endings.failed("e");
        assert_eq!((endings.attempt("e"), endings.count("e")), (2, 2));
        endings.over("e");
        assert_eq!((endings.attempt("e"), endings.count("e")), (1, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let endings = Endings::default();
        for n in 0..MANY + 10 {
            endings.failed(&n.to_string());
        }
        assert!(endings.lock().len() <= MANY);
    }
}
