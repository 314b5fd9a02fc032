//! Time and randomness that every run of an event sees alike.

use sha2::{Digest, Sha256};

use super::Run;

/// What a reading adds, in nanoseconds: a clock that stood still would make guests spin.
const STEP: u64 = 1_000;
const MAX_RANDOM: u32 = 64 << 10;

impl Run {
    pub(super) fn now(&mut self) -> u64 {
        self.clock_readings += 1;
        self.occasion.timestamp.saturating_add(STEP * self.clock_readings)
    }

    /// SHA-256 in counter mode over the event's id.
    pub(super) fn random(&mut self, len: u32) -> Vec<u8> {
        let len = len.min(MAX_RANDOM) as usize;
        let mut bytes = Vec::with_capacity(len + 32);
        while bytes.len() < len {
            let mut block = Sha256::new();
            block.update(self.occasion.event_id.as_bytes());
            block.update(self.random_blocks.to_be_bytes());
            self.random_blocks += 1;
            bytes.extend_from_slice(&block.finalize());
        }
        bytes.truncate(len);
        bytes
    }
}
