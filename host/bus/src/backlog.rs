//! How far a durable is behind, and what its stream will keep for it. Measured by the buses; judged by whoever asks.

use std::time::Duration;

/// Of one durable, at one moment or very nearly so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Under the durable's filter, stored and never delivered.
    pub waiting: u64,
    /// Delivered and not settled.
    pub outstanding: u64,
    /// All that the durable wants up to this sequence is settled.
    pub ack_floor: u64,
    pub oldest: Option<Oldest>,
    pub discarded: Discarded,
    pub stream: Holding,
}

/// The oldest event that is not settled and that its stream still holds. On NATS one that was settled after a redelivery
/// may stand in for a younger one, never for an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    pub sequence: u64,
    /// When it was stored, in nanoseconds since the epoch.
    pub timestamp: u64,
}

/// Events that their stream discarded by its limits before their turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Since this bus has been open. The embedded bus counts each. NATS does not tell: it follows from the counts of two
    /// looks, never too high; too low by what was redelivered or stored while they were taken, and by what vanished while
    /// a host had it. There a message that somebody deletes counts as well.
    pub known: u64,
    /// Messages that vanished from the stream before anybody looked, by the number of sequences: how many of them the
    /// durable wanted can't be told any more. 0 on the embedded bus.
    pub unseen: u64,
}

/// What a stream holds, and what it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub first: u64,
    pub last: u64,
    pub messages: u64,
    pub bytes: u64,
    pub max_messages: Option<u64>,
    pub max_bytes: Option<u64>,
    pub max_age: Option<Duration>,
    /// Full by count or bytes, it refuses what is new and keeps what is old. Age discards all the same.
    pub refuses_new: bool,
}

/// One of a stream's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    Messages,
    Bytes,
    Age,
}

impl Backlog {
    /// Stored and not settled.
    pub fn unsettled(&self) -> u64 {
        self.waiting + self.outstanding
    }

    /// How much of each limit that the stream has lies behind the oldest unsettled event: at 1 it is discarded. All
    /// messages of the stream count, not only the durable's. Bytes are estimated by the stream's average.
    pub fn used(&self, now: u64) -> Vec<(Limit, f64)> {
        let stream = &self.stream;
        let behind = self.oldest.map_or(0, |oldest| {
            (stream.last + 1).saturating_sub(oldest.sequence.max(stream.first)).min(stream.messages)
        });
        let part = |of: f64, limit: f64| if limit > 0.0 { of / limit } else { 0.0 };
        let share = part(behind as f64, stream.messages as f64);
        let messages = stream.max_messages.map(|most| (Limit::Messages, part(behind as f64, most as f64)));
        let bytes =
            stream.max_bytes.map(|most| (Limit::Bytes, part(share * stream.bytes as f64, most as f64)));
        let age = stream.max_age.map(|most| {
            let old = self.oldest.map_or(0, |oldest| now.saturating_sub(oldest.timestamp));
            (Limit::Age, part(Duration::from_nanos(old).as_secs_f64(), most.as_secs_f64()))
        });
        messages.into_iter().chain(bytes).chain(age).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(oldest: Option<Oldest>) -> Backlog {
        Backlog {
            waiting: 1,
            outstanding: 0,
            ack_floor: 0,
            oldest,
            discarded: Discarded::default(),
            stream: Holding {
                first: 101,
                last: 200,
                messages: 100,
                bytes: 5000,
                max_messages: Some(200),
                max_bytes: Some(10_000),
                max_age: Some(Duration::from_secs(10)),
                refuses_new: false,
            },
        }
    }

    #[test]
    fn what_lies_behind_the_oldest_unsettled_event_uses_up_the_limits() {
        let second = 1_000_000_000;
        let oldest = Some(Oldest { sequence: 121, timestamp: 2 * second });
        let used = backlog(oldest).used(7 * second);
        assert_eq!(used, [(Limit::Messages, 0.4), (Limit::Bytes, 0.4), (Limit::Age, 0.5)]);
        let none: f64 = backlog(None).used(7 * second).iter().map(|(_, used)| used).sum();
        assert_eq!(none, 0.0);
    }

    #[test]
    fn a_stream_without_limits_is_never_used_up() {
        let mut backlog = backlog(Some(Oldest { sequence: 1, timestamp: 0 }));
        let Holding { max_messages, max_bytes, max_age, .. } = &mut backlog.stream;
        (*max_messages, *max_bytes, *max_age) = (None, None, None);
        assert!(backlog.used(u64::MAX).is_empty());
    }
}
