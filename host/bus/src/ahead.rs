//! How much is fetched ahead of whoever takes deliveries: a number of messages that the taker chooses, and never more than
//! so many bytes.

use crate::api::Message;

/// Of one durable on one host: seven of the largest messages that a server takes by default. What is small comes in the
/// number that was asked for.
pub(crate) const BYTES: usize = 8 * 1024 * 1024;
/// Beside its payload, a message weighs its subjects and a few numbers.
const AROUND: usize = 64 * 1024;

/// About what a message weighs in memory.
pub(crate) fn weight(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.subject.len() + headers + message.data.len()
}

/// The bytes that a pull consumer's server was allowed, and has not sent or refused. Pulls that are open together are
/// counted as one: their messages can't be told apart.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// The largest message there can be.
    largest: usize,
    /// What the open pulls may still bring, or more: one that got all its messages does not say what bytes it left.
    open: usize,
    /// The next message is larger than any can be, from a time when it could.
    oversized: bool,
}

/// What the next pull may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing, before something is taken or has come.
    None,
    Bytes(usize),
    /// One message, whatever its size.
    One,
}

impl Ahead {
    pub(crate) fn new(max_payload: usize) -> Ahead {
        Ahead { largest: max_payload + AROUND, open: 0, oversized: false }
    }

    /// `waiting`: what weight waits for the taker. `open`: a pull may still bring something. Half of what is left goes to one
    /// pull, so that there is something to ask for before it is through.
    pub(crate) fn room(&mut self, waiting: usize, open: bool) -> Room {
        if !open {
            self.open = 0;
            if self.oversized && waiting == 0 {
                return Room::One;
            }
        }
        let room = BYTES.max(2 * self.largest).saturating_sub(waiting + self.open);
        if room < self.largest {
            return Room::None;
        }
        let bytes = (room / 2).max(self.largest);
        self.open += bytes;
        Room::Bytes(bytes)
    }

    /// A message has come.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.oversized = false;
        self.ended(bytes);
    }

    /// A pull ended with so much not sent.
    pub(crate) fn ended(&mut self, bytes: usize) {
        self.open = self.open.saturating_sub(bytes);
    }

    /// A pull ended because the next message is over what is left of its bytes.
    pub(crate) fn exhausted(&mut self, bytes: usize) {
        self.oversized = bytes >= self.largest;
        self.ended(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn no_more_is_asked_for_than_may_wait() {
        let mut ahead = Ahead::new(MIB);
        let mut waiting = 0;
        while let Room::Bytes(bytes) = ahead.room(waiting * MIB, false) {
            assert!(waiting * MIB + bytes <= BYTES, "{waiting}: {bytes}");
            // As many as fit, and the next does not.
            let came = bytes / MIB;
            (0..came).for_each(|_| ahead.came(MIB));
            ahead.exhausted(bytes - came * MIB);
            waiting += came;
        }
        assert_eq!(waiting, 7);
    }

    #[test]
    fn pulls_that_are_open_together_share_the_room() {
        let mut ahead = Ahead::new(MIB);
        let mut asked = 0;
        while let Room::Bytes(bytes) = ahead.room(0, true) {
            asked += bytes;
        }
        assert!(asked <= BYTES && asked > BYTES - 2 * MIB, "{asked}");
        // What they did not use is free again once none is open.
        assert!(matches!(ahead.room(0, false), Room::Bytes(_)));
    }

    #[test]
    fn a_message_over_every_limit_comes_alone() {
        let mut ahead = Ahead::new(MIB);
        let Room::Bytes(bytes) = ahead.room(0, false) else { unreachable!() };
        ahead.exhausted(bytes);
        assert_eq!(ahead.room(0, false), Room::One);
        ahead.came(20 * MIB);
        assert_eq!(ahead.room(20 * MIB, false), Room::None);
        assert!(matches!(ahead.room(0, false), Room::Bytes(_)));
    }

    #[test]
    fn a_server_that_takes_more_may_send_two_of_the_largest() {
        let mut ahead = Ahead::new(64 * MIB);
        assert!(matches!(ahead.room(0, false), Room::Bytes(bytes) if bytes >= 64 * MIB));
    }
}
