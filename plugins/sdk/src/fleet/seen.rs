//! Which messages an aggregate has taken in, so that a repeat has no effect.

use serde::{Deserialize, Serialize};

use super::{Incoming, Timestamp};

/// A message is remembered for a day.
const KEPT_MS: u64 = 24 * 3_600 * 1_000;
/// The memory rides in the aggregate's cell, so it is bounded; the oldest go first.
const MOST: usize = 128;

/// The messages of the last day that were acked: a memory that is saved only with the effects of its event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(Vec<(String, Timestamp)>);

impl Seen {
    /// True the first time; a message of the same subject, key and payload is not the first.
    pub fn first_time(&mut self, message: &Incoming) -> bool {
        self.first_time_since(message, Timestamp::default())
    }

    /// As [`Seen::first_time`], but a message that was stored after `since` repeats none from before: for messages that are
    /// alike whenever they are sent, and can only be told apart by what happened between them.
    pub fn first_time_since(&mut self, message: &Incoming, since: Timestamp) -> bool {
        let mut digest = message.digest();
        // 128 bits are as good here, and half the size.
        digest.truncate(32);
        let now = message.arrival();
        self.0.retain(|(_, at)| now.millis_since(*at) < KEPT_MS);
        let is_same = |known: &(String, Timestamp)| known.0 == digest && (known.1 > since || now <= since);
        if self.0.iter().any(is_same) {
            return false;
        }
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push((digest, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{EPOCH, event};

    fn message(number: usize, at: u64) -> Incoming {
        let mut event = event("x", serde_json::json!({ "n": number }));
        // Not by the clock of all tests, which others set on meanwhile.
        event.timestamp = EPOCH + at * 1_000_000_000;
        Incoming::read(&event).unwrap()
    }

    #[test]
    fn contract_2_1_dedupe_a_repeat_is_noticed_for_a_day() {
        let mut seen = Seen::default();
        assert!(seen.first_time(&message(1, 0)));
        assert!(!seen.first_time(&message(1, 80_000)));
        assert!(seen.first_time(&message(1, 87_000)));
    }

    #[test]
    fn what_happened_between_two_messages_tells_them_apart() {
        let mut seen = Seen::default();
        let between = message(2, 10).arrival();
        let (first, early, late) = (message(1, 5), message(1, 8), message(1, 15));
        assert!(seen.first_time_since(&first, Timestamp::default()));
        assert!(!seen.first_time_since(&early, between), "delivered late");
        assert!(seen.first_time_since(&late, between));
        assert!(!seen.first_time_since(&late, between));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..200 {
            assert!(seen.first_time(&message(number, 0)));
        }
        assert_eq!(seen.0.len(), MOST);
        assert!(!seen.first_time(&message(199, 0)));
    }
}
