//! Whether the events that a host holds are still its own. As long as its heartbeats go out in time nobody else has them;
//! a host that was frozen for longer than the ack wait has to take it that others do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What reaches the host so soon after a gap may have lain before its door all the time.
const DOORSTEP: Duration = Duration::from_secs(1);

/// The heartbeats of one subscription.
#[derive(Debug)]
pub(crate) struct Grip {
    ack_wait: Duration,
    beats: Mutex<Beats>,
}

#[derive(Debug)]
struct Beats {
    last: Instant,
    /// When the last gap ended that was longer than the ack wait.
    gap: Option<Instant>,
}

/// An event in the grip.
#[derive(Debug, Clone)]
pub struct Held {
    grip: Arc<Grip>,
    arrived: Instant,
}

impl Grip {
    pub(crate) fn new(ack_wait: Duration) -> Arc<Self> {
        Arc::new(Self { ack_wait, beats: Mutex::new(Beats { last: Instant::now(), gap: None }) })
    }

    /// To be called before heartbeats are sent.
    pub(super) fn beat(&self) {
        self.beat_at(Instant::now());
    }

    pub(crate) fn beat_at(&self, now: Instant) {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(beats.last) >= self.ack_wait {
            beats.gap = Some(now);
        }
        beats.last = now;
    }

    /// An event that came at this time.
    pub(crate) fn hold(self: &Arc<Self>, arrived: Instant) -> Held {
        Held { grip: self.clone(), arrived }
    }
}

impl Held {
    /// No other host has it, so far as heartbeats can tell.
    pub(crate) fn is_sure(&self) -> bool {
        self.is_sure_at(Instant::now())
    }

    fn is_sure_at(&self, now: Instant) -> bool {
        let beats = self.grip.beats.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(beats.last) < self.grip.ack_wait
            && beats.gap.is_none_or(|end| self.arrived >= end + DOORSTEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_over_a_gap_is_not_sure_any_more() {
        let grip = Grip::new(Duration::from_secs(30));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        grip.beat_at(at(0));
        let held = grip.hold(at(5));
        assert!(held.is_sure_at(at(9)));
        grip.beat_at(at(10));
        assert!(held.is_sure_at(at(39)));
        assert!(!held.is_sure_at(at(40)), "no heartbeat since");
        assert!(!grip.hold(at(40)).is_sure_at(at(40)), "the gap is not seen yet");
        grip.beat_at(at(41));
        assert!(!held.is_sure_at(at(42)), "somebody else may have it");
        assert!(!grip.hold(at(41)).is_sure_at(at(42)), "it may have been there for long");
        assert!(grip.hold(at(43)).is_sure_at(at(44)));
    }
}
