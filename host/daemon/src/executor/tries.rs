//! How often this host has tried a job. The bus's count of deliveries won't do: it counts what was handed back unworked,
//! too, and what ended with a host.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Jobs remembered. Those that another host has ended are never told to be over, so the oldest give way.
const MANY: usize = 10_000;

/// Tries that came to nothing, by job id.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<HashMap<String, (u32, Instant)>>);

impl Tries {
    /// The number of the try that begins now, from 1.
    pub(super) fn of(&self, job: &str) -> u32 {
        self.lock().get(job).map_or(1, |(failed, _)| failed + 1)
    }

    /// This try came to nothing, and there will be another.
    pub(super) fn failed(&self, job: &str, attempt: u32) {
        let mut tries = self.lock();
        if tries.len() >= MANY && !tries.contains_key(job) {
            let oldest = tries.iter().min_by_key(|(_, (_, at))| *at).map(|(job, _)| job.clone());
            oldest.and_then(|oldest| tries.remove(&oldest));
        }
        tries.insert(job.to_owned(), (attempt, Instant::now()));
    }

    pub(super) fn over(&self, job: &str) {
        self.lock().remove(job);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_counts() {
        let tries = Tries::default();
        assert_eq!((tries.of("a"), tries.of("a")), (1, 1));
        tries.failed("a", 1);
        assert_eq!((tries.of("a"), tries.of("b")), (2, 1));
        tries.failed("a", 2);
        assert_eq!(tries.of("a"), 3);
        tries.over("a");
        assert_eq!(tries.of("a"), 1);
    }

    #[test]
    fn the_oldest_job_gives_way() {
        let tries = Tries::default();
        for job in 0..=MANY {
            tries.failed(&job.to_string(), 1);
        }
        assert_eq!(tries.lock().len(), MANY);
        assert_eq!((tries.of("0"), tries.of("1"), tries.of(&MANY.to_string())), (1, 2, 2));
    }
}
