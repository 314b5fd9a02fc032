//! The server's clock, as near as its answers tell: message timestamps and duplicate windows are by that clock. Our own
//! wall clock has no part in it once the server has spoken, because it may be set at any time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Clocks of two nodes of a cluster may disagree by this much, and any of them may answer. A message is looked for from
/// that much before its commit (see `commit::apply`), so to be late by so little is made up for.
const LEADERS: Duration = Duration::from_secs(2);
/// How much worse a measurement becomes with age: quartz drifts by less than a tenth of this.
const DRIFT: u32 = 1000;

#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// The server's time then, nanoseconds since the epoch.
    time: u64,
    /// It is right to this.
    error: Duration,
}

impl Sample {
    fn time_at(&self, now: Instant) -> u64 {
        self.time.saturating_add(nanos(now.saturating_duration_since(self.at)))
    }

    fn error_at(&self, now: Instant) -> Duration {
        self.error + now.saturating_duration_since(self.at) / DRIFT
    }
}

impl ServerClock {
    /// The server told its time, in an answer that was asked for at `asked` and has come by `now`.
    ///
    /// It looked at its clock somewhere in between, so an answer that took long says little: one that was held up for five
    /// seconds would set us back by up to five. So the quickest answer is believed, until it is so old that a slow one is
    /// as good. An answer that contradicts it is another matter: a later time is believed at once, because to think that it
    /// is later than it is costs a search, and to think that it is earlier relies upon a window that has passed. An
    /// earlier one by little is another node's clock; by much, a clock that was put right.
    pub(super) fn heard(&self, server: u64, asked: Instant, now: Instant) {
        let error = now.saturating_duration_since(asked);
        let heard = Sample { at: now, time: server.saturating_add(nanos(error / 2)), error };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = kept.is_none_or(|kept| {
            let says = kept.time_at(now);
            let apart = Duration::from_nanos(says.abs_diff(heard.time));
            if apart <= kept.error_at(now) + error {
                return error <= kept.error_at(now);
            }
            heard.time > says || apart > LEADERS + error
        });
        if replaced {
            *kept = Some(heard);
        }
    }

    /// Nanoseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> u64 {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(kept) => kept.time_at(now),
            None => nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as (when it came, how long it took, the server's time), in milliseconds; gives what the clock says at `when`.
    fn says(answers: &[(u64, u64, u64)], when: u64) -> u64 {
        let (clock, begin) = (ServerClock::default(), Instant::now());
        let ms = Duration::from_millis;
        for (at, took, server) in answers {
            let now = begin + ms(*at);
            clock.heard(server * 1_000_000, now - ms(*took), now);
        }
        clock.at(begin + ms(when)) / 1_000_000
    }

    #[test]
    fn a_slow_answer_does_not_move_the_clock() {
        // Five seconds on the way back, then on the way there.
        assert_eq!(says(&[(10_000, 2, 110_000), (20_000, 5000, 115_000)], 20_000), 120_001);
        assert_eq!(says(&[(10_000, 2, 110_000), (20_000, 5000, 119_999)], 20_000), 120_001);
    }

    #[test]
    fn a_quicker_answer_corrects_a_slow_one() {
        assert_eq!(says(&[(10_000, 5000, 105_000), (20_000, 2, 119_999)], 20_000), 120_000);
    }

    #[test]
    fn with_time_a_slower_answer_is_as_good() {
        // An hour later the clocks have drifted apart by 3 s, within what is allowed for.
        assert_eq!(says(&[(10_000, 2, 110_000), (3_610_000, 100, 3_707_000)], 3_610_000), 3_707_050);
    }

    #[test]
    fn a_later_time_is_believed_and_an_earlier_one_only_if_it_is_far_off() {
        let first = (10_000, 2, 110_000);
        assert_eq!(says(&[first, (20_000, 2, 121_500)], 20_000), 121_501, "later");
        assert_eq!(says(&[first, (20_000, 2, 118_500)], 20_000), 120_001, "another node's");
        assert_eq!(says(&[first, (20_000, 2, 60_000)], 20_000), 60_001, "put right");
    }
}
