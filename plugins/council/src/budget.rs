//! How long a deliberation may take. A plugin's clock stands still while it waits; what is left for the event does not.

use std::time::Duration;

use cofferdam_sdk::delivery;

/// Kept of the event's own time for what comes after the last answer: the scoring stage, the commit. A question that is out when the event's
/// time ends would be nobody's failure, and asked once more by the next run.
const RESERVE: Duration = Duration::from_secs(15);
/// A round that has less is not begun.
const LEAST: Duration = Duration::from_secs(2);

/// The time of one run. Another run of the event gets at once what the first was answered, and has its time anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// What was left for the event when it began.
    began: Duration,
    most: Duration,
}

impl Budget {
    pub(crate) fn start(timeout_seconds: u32) -> Self {
        Self::of(delivery::deadline(), timeout_seconds)
    }

    fn of(began: Duration, timeout_seconds: u32) -> Self {
        let asked = Duration::from_secs(timeout_seconds.into());
        Self { began, most: asked.min(began.saturating_sub(RESERVE)) }
    }

    /// What an agent has for its answer, in seconds: at least one.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds_at(delivery::deadline())
    }

    fn seconds_at(&self, deadline: Duration) -> u32 {
        let left = self.most.saturating_sub(self.elapsed(deadline));
        u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1)
    }

    /// Whether there is time for another step.
    pub(crate) fn lasts(&self) -> bool {
        self.lasts_at(delivery::deadline())
    }

    fn lasts_at(&self, deadline: Duration) -> bool {
        self.most.saturating_sub(self.elapsed(deadline)) >= LEAST
    }

    pub(crate) fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.elapsed(delivery::deadline()).as_millis()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self, deadline: Duration) -> Duration {
        self.began.saturating_sub(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_deliberation_is_over_before_the_host_ends_it() {
        let long = Budget::of(s(300), 300);
        assert_eq!((long.seconds_at(s(300)), long.seconds_at(s(100)), long.seconds_at(s(5))), (285, 85, 1));
        assert!(long.lasts_at(s(17)) && !long.lasts_at(s(16)));
        assert_eq!(Budget::of(s(5), 300).seconds_at(s(5)), 1);
    }

    #[test]
    fn it_has_no_more_time_than_it_was_given() {
        let short = Budget::of(s(300), 20);
        assert_eq!((short.seconds_at(s(300)), short.seconds_at(s(290))), (20, 10));
        assert!(short.lasts_at(s(282)) && !short.lasts_at(s(281)));
    }

    #[test]
    fn a_deadline_that_moves_away_is_no_time() {
        assert_eq!(Budget::of(s(40), 20).seconds_at(s(60)), 20);
    }
}
