//! Message ids of a stream, remembered for its duplicate window. Kept in memory; after a start they are read from the
//! messages themselves.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use sha2::{Digest, Sha256};

/// Half a hash of the id: memory is the price of the window, and no two of these are ever equal.
type Key = u128;

#[derive(Debug, Default)]
pub(super) struct Ids {
    known: HashMap<Key, u64>,
    /// When each was stored, oldest first.
    ages: VecDeque<(u64, Key)>,
}

impl Ids {
    /// Where the message with this id is stored, if it was within the window.
    pub(super) fn get(&mut self, id: &str, now: u64, window: Duration) -> Option<u64> {
        self.forget(now, window);
        self.known.get(&key(id)).copied()
    }

    /// Times never go back.
    pub(super) fn remember(&mut self, id: &str, sequence: u64, at: u64) {
        let key = key(id);
        self.known.insert(key, sequence);
        self.ages.push_back((at, key));
    }

    pub(super) fn forget(&mut self, now: u64, window: Duration) {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        while let Some((at, key)) = self.ages.front()
            && at.saturating_add(window) <= now
        {
            self.known.remove(key);
            self.ages.pop_front();
        }
        // What a burst took is given back.
        if self.known.capacity() > 1024 && self.known.len() < self.known.capacity() / 8 {
            self.known.shrink_to(self.known.len() * 2);
            self.ages.shrink_to(self.ages.len() * 2);
        }
    }
}

fn key(id: &str) -> Key {
    let hash: [u8; 32] = Sha256::digest(id).into();
    let (half, _) = hash.split_at(16);
    half.iter().fold(0, |key, byte| key << 8 | Key::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_the_window_and_no_longer() {
        let window = Duration::from_nanos(100);
        let mut ids = Ids::default();
        ids.remember("a", 1, 1000);
        ids.remember("b", 2, 1050);
        assert_eq!(ids.get("a", 1099, window), Some(1));
        assert_eq!(ids.get("a", 1100, window), None);
        assert_eq!(ids.get("b", 1100, window), Some(2));
        assert_eq!(ids.get("c", 1100, window), None);
    }
}
