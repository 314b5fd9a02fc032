//! Another attempt: the change whose only effect is a timer, which brings the event to its plugin's inbox.

use std::time::Duration;

use cofferdam_bus::{Change, Timer};

use super::{Work, inbox, inbox::Envelope};
use crate::clock::now;

/// What happened to an event before the delivery at hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Attempts that failed, deliveries that they took.
    pub(super) failed: u32,
    pub(super) deliveries: u32,
    /// How often it was redriven, and the sequence of the dead letter that this delivery was redriven from; 0: of none.
    pub(super) life: u64,
    pub(super) dead_letter: u64,
    /// Where the event was first stored.
    pub(super) stream: String,
    pub(super) sequence: u64,
    pub(super) times: Times,
}

/// Of an event, in nanoseconds since the epoch by the clocks of hosts; 0: not yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) first_seen: u64,
    pub(super) first_failed: u64,
    pub(super) last_failed: u64,
}

impl Times {
    /// The first run begins, unless it has.
    pub(super) fn seen(mut self, now: u64) -> Self {
        if self.first_seen == 0 {
            self.first_seen = now;
        }
        self
    }

    pub(super) fn failed(mut self, now: u64) -> Self {
        if self.first_failed == 0 {
            self.first_failed = now;
        }
        self.last_failed = now;
        self
    }
}

/// The attempt after this one, after a pause.
pub(super) fn change(work: &Work<'_>, pause: Duration) -> Change {
    let (event, past) = (&work.decoded.event, &work.decoded.past);
    let (plugin, attempt) = (work.plugin.name.as_str(), work.attempt + 1);
    let now = now();
    let times = work.times.failed(now);
    let envelope = Envelope {
        root: event.id.clone(),
        subject: event.subject.clone(),
        data: event.data.clone(),
        timestamp: event.timestamp,
        durable: work.decoded.subscription.durable.clone(),
        attempt,
        life: past.life,
        stream: past.stream.clone(),
        sequence: past.sequence,
        first_seen: times.first_seen,
        first_failed: times.first_failed,
        last_failed: times.last_failed,
        deliveries: past.deliveries.saturating_add(work.delivery.count),
        ..Envelope::new(&event.headers)
    };
    let timer = Timer {
        id: inbox::timer(plugin, &event.id, past.life, attempt),
        at: now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
        message: envelope.message(plugin),
    };
    Change { event: work.cause(), timers: vec![timer], ..Change::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_kept_and_the_last_one_is_the_newest() {
        let times = Times::default().seen(1).failed(2).seen(3).failed(4);
        assert_eq!(times, Times { first_seen: 1, first_failed: 2, last_failed: 4 });
    }
}
