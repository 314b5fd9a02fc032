//! Whether an endpoint is asked at all: not for a while after so many breakdowns in a row, then one request to see.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// When an endpoint is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Breakdowns in a row.
    pub failures: u32,
    /// The first time; longer each time that the request that tries it fails.
    pub pause: Duration,
    pub max_pause: Duration,
    /// A request whose deadline ends it, and that had no word of its answer for so long by then, is a breakdown, too: an endpoint
    /// that hangs is found out though nobody waits for long enough to say so.
    pub silence: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(2),
            max_pause: Duration::from_secs(60),
            silence: Duration::from_secs(10),
        }
    }
}

impl Breaker {
    /// Jitter at most doubles each.
    fn pauses(&self) -> ExponentialBackoff {
        let pauses = ExponentialBuilder::new().with_min_delay(self.pause).with_max_delay(self.max_pause);
        pauses.without_max_times().with_jitter().build()
    }
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// The endpoint is asked.
    Closed,
    /// It is left alone.
    Open,
    /// One request is out, or may go out, to see.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying,
}

#[derive(Debug)]
pub(super) struct Guard {
    config: Breaker,
    state: State,
    /// Those still to come, since it was last closed.
    pauses: ExponentialBackoff,
}

impl Guard {
    pub(super) fn new(config: Breaker) -> Self {
        let pauses = config.pauses();
        Self { config, state: State::Closed { failures: 0 }, pauses }
    }

    /// Until when nothing is to be asked; nothing if something is. An endpoint that is being tried has no such time: its
    /// trial decides.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open { until } if until > now => Some(until),
            _ => None,
        }
    }

    /// Whether a request may go out now.
    pub(super) fn lets_pass(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => until <= now,
            State::Trying => false,
        }
    }

    /// A request goes out; true if it is the one that tries the endpoint.
    pub(super) fn pass(&mut self) -> bool {
        let trial = matches!(self.state, State::Open { .. });
        if trial {
            self.state = State::Trying;
        }
        trial
    }

    /// An answer came: whatever the endpoint had is over.
    pub(super) fn succeeded(&mut self) {
        if !matches!(self.state, State::Closed { failures: 0 }) {
            self.state = State::Closed { failures: 0 };
            self.pauses = self.config.pauses();
        }
    }

    pub(super) fn broke_down(&mut self, trial: bool, now: Instant) {
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= self.config.failures {
                    self.open(now);
                }
            }
            State::Trying if trial => self.open(now),
            // Sent before it opened: that is known.
            State::Open { .. } | State::Trying => {}
        }
    }

    /// A request came to an end that says nothing of the endpoint's health.
    pub(super) fn says_nothing(&mut self, trial: bool, now: Instant) {
        if trial && matches!(self.state, State::Trying) {
            self.state = State::Open { until: now };
        }
    }

    fn open(&mut self, now: Instant) {
        let pause = self.pauses.next().unwrap_or(self.config.max_pause);
        self.state = State::Open { until: now + pause };
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if until > now => BreakerState::Open,
            State::Open { .. } | State::Trying => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let pause = Duration::from_secs(10);
        Guard::new(Breaker { failures: 2, pause, max_pause: 4 * pause, ..Breaker::default() })
    }

    #[test]
    fn it_opens_after_breakdowns_in_a_row_and_one_request_tries_it() {
        let (mut guard, start) = (guard(), Instant::now());
        guard.broke_down(false, start);
        guard.succeeded();
        guard.broke_down(false, start);
        assert_eq!(guard.state(start), BreakerState::Closed, "not in a row");
        guard.broke_down(false, start);
        assert_eq!((guard.state(start), guard.lets_pass(start)), (BreakerState::Open, false));

        // Jitter at most doubles the pause.
        let later = start + Duration::from_secs(20);
        assert_eq!((guard.state(later), guard.lets_pass(later)), (BreakerState::HalfOpen, true));
        assert!(guard.pass(), "the one that tries it");
        assert!(!guard.lets_pass(later), "and no other");
        guard.broke_down(false, later);
        assert_eq!(guard.state(later), BreakerState::HalfOpen, "what was sent before does not decide");
        guard.broke_down(true, later);
        let until = guard.rests_until(later).unwrap();
        assert!(until >= later + Duration::from_secs(20), "longer than the first time");

        assert!(guard.lets_pass(until) && guard.pass());
        guard.succeeded();
        assert_eq!(
            (guard.state(until), guard.lets_pass(until), guard.pass()),
            (BreakerState::Closed, true, false)
        );
    }

    #[test]
    fn a_trial_that_nobody_waited_for_is_followed_by_another() {
        let (mut guard, start) = (guard(), Instant::now());
        guard.broke_down(false, start);
        guard.broke_down(false, start);
        let later = start + Duration::from_secs(20);
        assert!(guard.pass());
        guard.says_nothing(true, later);
        assert!(guard.lets_pass(later) && guard.pass());
    }
}
