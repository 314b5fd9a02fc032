//! Message ids of a stream, remembered for its duplicate window. Kept in memory; after a start they are read from the
//! messages themselves. Memory is the price of the window, so an id takes 17 to 34 bytes, and what a burst took is given back
//! a chapter at a time.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use sha2::{Digest, Sha256};

/// A quarter of a hash of the id. With a million ids in the window one new id in 18 million million is taken for one of them.
type Key = u64;

/// Ids of a chapter: as many as a table of 2^17 takes before it grows.
const CHAPTER: usize = 114_688;

#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Oldest first.
    chapters: VecDeque<Chapter>,
}

/// Ids that were stored one after another.
#[derive(Debug)]
struct Chapter {
    /// Of the first.
    sequence: u64,
    at: u64,
    /// When the last was stored.
    last: u64,
    known: HashMap<Key, Place>,
}

/// Of one id, from its chapter's first.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u32,
    microseconds: u32,
}

impl Ids {
    /// Where the message with this id is stored, if it was within the window.
    pub(super) fn get(&mut self, id: &str, now: u64, window: Duration) -> Option<u64> {
        self.forget(now, window);
        let key = key(id);
        // The newest first: it may have been stored again after a window.
        let (chapter, place) = self.chapters.iter().rev().find_map(|c| Some((c, c.known.get(&key)?)))?;
        let at = chapter.at + u64::from(place.microseconds) * 1000;
        (!is_over(at, now, window)).then(|| chapter.sequence + u64::from(place.sequence))
    }

    /// Times and sequences never go back.
    pub(super) fn remember(&mut self, id: &str, sequence: u64, at: u64) {
        let place =
            self.chapters.back().filter(|c| c.known.len() < CHAPTER).and_then(|c| c.place(sequence, at));
        let place = place.unwrap_or_else(|| {
            self.chapters.push_back(Chapter { sequence, at, last: at, known: HashMap::new() });
            Place { sequence: 0, microseconds: 0 }
        });
        if let Some(chapter) = self.chapters.back_mut() {
            chapter.last = at;
            chapter.known.insert(key(id), place);
        }
    }

    pub(super) fn forget(&mut self, now: u64, window: Duration) {
        while self.chapters.front().is_some_and(|oldest| is_over(oldest.last, now, window)) {
            self.chapters.pop_front();
        }
    }
}

impl Chapter {
    /// None if it is too far from the first.
    fn place(&self, sequence: u64, at: u64) -> Option<Place> {
        let sequence = u32::try_from(sequence.checked_sub(self.sequence)?).ok()?;
        // Rounded up: rather known a microsecond longer.
        let microseconds = u32::try_from(at.checked_sub(self.at)?.div_ceil(1000)).ok()?;
        Some(Place { sequence, microseconds })
    }
}

fn is_over(at: u64, now: u64, window: Duration) -> bool {
    at.saturating_add(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)) <= now
}

fn key(id: &str) -> Key {
    let hash: [u8; 32] = Sha256::digest(id).into();
    let (quarter, _) = hash.split_at(8);
    quarter.iter().fold(0, |key, byte| key << 8 | Key::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(100);

    fn at(microseconds: u64) -> u64 {
        microseconds * 1000
    }

    #[test]
    fn an_id_is_known_for_the_window_and_no_longer() {
        let mut ids = Ids::default();
        ids.remember("a", 1, at(1000));
        ids.remember("b", 2, at(1050));
        assert_eq!(ids.get("a", at(1099), WINDOW), Some(1));
        assert_eq!(ids.get("a", at(1100), WINDOW), None);
        assert_eq!(ids.get("b", at(1100), WINDOW), Some(2));
        assert_eq!(ids.get("c", at(1100), WINDOW), None);
        // Again, after its window.
        ids.remember("a", 3, at(1140));
        assert_eq!(ids.get("a", at(1150), WINDOW), Some(3));
        assert_eq!(ids.get("b", at(1150), WINDOW), None);
        assert_eq!(ids.get("a", at(1240), WINDOW), None);
        assert!(ids.chapters.is_empty());
    }

    #[test]
    fn all_of_a_burst_are_known_and_none_is_kept_for_longer() {
        let mut ids = Ids::default();
        let many = 3 * CHAPTER as u64 + 7;
        for n in 0..many {
            ids.remember(&n.to_string(), 10 + n, at(n / 1000));
        }
        assert_eq!(ids.chapters.len(), 4);
        for n in (0..many).step_by(997) {
            assert_eq!(ids.get(&n.to_string(), at(many / 1000), Duration::from_secs(1)), Some(10 + n));
        }
        // What is far from the first of its chapter begins another.
        ids.remember("far", 1 << 40, at(many));
        assert_eq!(ids.get("far", at(many), WINDOW), Some(1 << 40));
        assert_eq!(ids.chapters.len(), 1, "the others are over");
    }
}
