//! When who is killed: by how far the plan is, not by the clock, so that all kills fall on the way however fast the machine
//! is. The order and the places follow from a seed; the timing of the processes does not.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::demo::{DAEMON, WORKER};

/// No kill is meant for what comes later: near the end the plan may be through before it.
const LATEST: f64 = 0.7;
/// After the place is reached. What we see of the plan we see between two events, and a crash may come within one.
const AFTER_MS: u64 = 80;

/// How often each was killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::demo) struct Kills {
    pub(in crate::demo) daemon: u64,
    pub(in crate::demo) worker: u64,
}

#[derive(Debug)]
struct Kill {
    who: &'static str,
    /// From 0 to 1, of the plan's way.
    place: f64,
    after: Duration,
}

#[derive(Debug)]
pub(super) struct Schedule {
    /// The next one last.
    left: Vec<Kill>,
    reached: Option<Instant>,
    pub(super) done: Kills,
}

impl Schedule {
    /// `each` kills of the daemon, and of the worker if there is one.
    pub(super) fn new(seed: u64, each: u64, with_worker: bool) -> Self {
        let mut dice = Dice(seed);
        let mut left = Vec::new();
        for who in [DAEMON, WORKER].into_iter().take(if with_worker { 2 } else { 1 }) {
            left.extend((0..each).map(|_| {
                let place = LATEST * dice.part();
                let after = Duration::from_millis(dice.draw() % (AFTER_MS + 1));
                Kill { who, place, after }
            }));
        }
        left.sort_by(|one, other| other.place.total_cmp(&one.place));
        Self { left, reached: None, done: Kills::default() }
    }

    /// Who is to be killed now.
    pub(super) fn due(&mut self, progress: f64, now: Instant) -> Option<&'static str> {
        let next = self.left.last()?;
        if progress < next.place || now < *self.reached.get_or_insert(now) + next.after {
            return None;
        }
        self.reached = None;
        let Kill { who, .. } = self.left.pop()?;
        match who {
            DAEMON => self.done.daemon += 1,
            _ => self.done.worker += 1,
        }
        Some(who)
    }

    pub(super) fn left(&self) -> usize {
        self.left.len()
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits, all that an f64 holds")]
    fn part(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_order_and_all_are_due_before_the_end() {
        let order = |seed| {
            let mut schedule = Schedule::new(seed, 10, true);
            let mut now = Instant::now();
            let mut order = Vec::new();
            for step in 0..=80_u32 {
                // Each is due once its delay is over, too.
                for _ in 0..50 {
                    order.extend(schedule.due(f64::from(step) / 100.0, now).map(|who| (step, who)));
                    now += Duration::from_millis(AFTER_MS);
                }
            }
            assert_eq!((schedule.left(), schedule.done), (0, Kills { daemon: 10, worker: 10 }));
            order
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn nobody_is_killed_before_the_place_and_its_delay() {
        let mut schedule = Schedule::new(1, 1, false);
        let now = Instant::now();
        assert_eq!(schedule.due(-1.0, now), None);
        let kill = schedule.left.last_mut().unwrap();
        kill.after = Duration::from_millis(50);
        assert_eq!(schedule.due(LATEST, now), None);
        assert_eq!(schedule.due(LATEST, now + Duration::from_millis(49)), None);
        assert_eq!(schedule.due(LATEST, now + Duration::from_millis(50)), Some(DAEMON));
        assert_eq!(schedule.due(1.0, now + Duration::from_secs(9)), None);
    }
}
