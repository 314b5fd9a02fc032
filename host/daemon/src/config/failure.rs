//! What a subscription does about failures: how often an event is tried, after which pauses, and whether its key waits.

use std::time::Duration;

use super::reader::Table;

/// The contract's: three attempts, five seconds between them.
const MAX_ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_secs(5);
/// A pause that does not grow is what the fleet's services do; who allows many attempts will want another.
const FACTOR: f64 = 1.0;
/// With this, a pause that begins with a millisecond is at its longest after seven attempts; more is a typing error.
const MOST: f64 = 10.0;
/// As long as a handler may ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// Enough that what failed together does not come again together.
const JITTER: f64 = 0.2;

#[derive(Debug, Clone, PartialEq)]
pub struct FailurePolicy {
    pub max_attempts: u32,
    /// Before the second attempt.
    pub backoff: Duration,
    /// Of each pause to the one before it.
    pub factor: f64,
    pub longest: Duration,
    /// A pause is longer by up to this share of it.
    pub jitter: f64,
    pub on_failure: OnFailure,
}

/// What becomes of the place that a failed event has among those of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The next of the key goes on.
    LosePlace,
    /// The key waits.
    Hold,
}

impl FailurePolicy {
    /// One attempt.
    pub(crate) fn once() -> Self {
        Self {
            max_attempts: 1,
            backoff: BACKOFF,
            factor: FACTOR,
            longest: LONGEST,
            jitter: JITTER,
            on_failure: OnFailure::LosePlace,
        }
    }

    /// No other attempt follows this one.
    pub fn is_last(&self, attempt: u32) -> bool {
        attempt >= self.max_attempts
    }

    pub(super) fn read(table: &Table<'_>, keyed: bool) -> Self {
        let max_attempts = table.integer("max-attempts", 1, 1000).or(MAX_ATTEMPTS);
        let backoff = table.duration("backoff").or(BACKOFF);
        let factor = table.number("backoff-factor", 1.0, MOST).or(FACTOR);
        let longest = table.duration("backoff-max").or(LONGEST.max(backoff));
        let jitter = table.number("jitter", 0.0, 1.0).or(JITTER);
        if longest < backoff {
            let time = humantime::format_duration;
            table.fault_of(
                "backoff-max",
                format!(
                    "backoff-max is {}, below backoff, which is {}; raise it, or lower backoff",
                    time(longest),
                    time(backoff)
                ),
            );
        }
        let on_failure =
            table.parsed_or("on-failure", "lose-place", "one of lose-place, hold", |s| match s {
                "lose-place" => Some(OnFailure::LosePlace),
                "hold" => Some(OnFailure::Hold),
                _ => None,
            });
        if on_failure == Some(OnFailure::Hold) && !keyed {
            table.fault_of(
                "on-failure",
                "on-failure = \"hold\" makes the other events of a key wait, and there is no order-key; add one, or remove \
                 on-failure",
            );
        }
        let on_failure = on_failure.unwrap_or(OnFailure::LosePlace);
        Self { max_attempts, backoff, factor, longest, jitter, on_failure }
    }

    /// The pause after an attempt that failed, without jitter.
    pub fn pause(&self, attempt: u32) -> Duration {
        let steps = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.backoff.as_secs_f64() * self.factor.powi(steps);
        // What is too long for a duration is too long in any case.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.longest).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::manifest::tests::{check, parse},
        *,
    };

    fn of(lines: &str) -> FailurePolicy {
        let manifest = parse(&format!("[[subscriptions]]\nsubject = \"a\"\n{lines}")).unwrap();
        manifest.subscriptions[0].failure.clone()
    }

    #[test]
    fn the_defaults_are_the_contracts() {
        let policy = of("");
        assert_eq!((policy.max_attempts, policy.on_failure), (3, OnFailure::LosePlace));
        let pauses = [1, 2, 1000].map(|attempt| policy.pause(attempt));
        assert_eq!(pauses, [Duration::from_secs(5); 3]);
    }

    #[test]
    fn a_pause_grows_up_to_its_longest() {
        let policy = of("backoff = \"100ms\"\nbackoff-factor = 2\nbackoff-max = \"1s\"\n");
        let pauses = [1, 2, 3, 4, 5, 1000, u32::MAX].map(|attempt| policy.pause(attempt).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(of("backoff = \"2h\"\n").pause(1), Duration::from_secs(7200));
    }

    #[test]
    fn faults_name_the_value_and_the_remedy() {
        for (lines, at, says) in [
            ("max-attempts = 0\n", 3, "a whole number of 1 to 1000"),
            (
                "backoff-factor = 0.5\n",
                3,
                "subscriptions.backoff-factor is 0.5, which is not a number from 1 to 10",
            ),
            ("jitter = 2\n", 3, "subscriptions.jitter is 2, which is not a number from 0 to 1"),
            ("jitter = \"a\"\n", 3, "which is not a number from 0 to 1"),
            ("backoff = \"5s\"\nbackoff-max = \"1s\"\n", 4, "backoff-max is 1s, below backoff, which is 5s"),
            ("on-failure = \"stop\"\n", 3, "which is not one of lose-place, hold"),
            ("on-failure = \"hold\"\n", 3, "there is no order-key"),
        ] {
            check(&format!("[[subscriptions]]\nsubject = \"a\"\n{lines}"), at, says);
        }
        let held = of("order-key = \"/id\"\non-failure = \"hold\"\njitter = 0\nbackoff-factor = 1.5\n");
        assert_eq!((held.on_failure, held.jitter, held.factor), (OnFailure::Hold, 0.0, 1.5));
    }
}
