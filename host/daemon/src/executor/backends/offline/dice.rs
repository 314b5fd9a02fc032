//! Chance that is the same each time.

use sha2::{Digest, Sha256};

/// SplitMix64; loaded, it always gives the first.
pub(super) struct Dice(Option<u64>);

impl Dice {
    pub(super) fn new(seeds: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for seed in seeds {
            hash.update((seed.len() as u64).to_be_bytes());
            hash.update(seed);
        }
        let hash: [u8; 32] = hash.finalize().into();
        Self(Some(hash.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))))
    }

    pub(super) fn loaded() -> Self {
        Self(None)
    }

    /// What one gives says nothing of the other.
    pub(super) fn another(&mut self) -> Self {
        Self(Some(self.next()))
    }

    /// Less than `many`.
    pub(super) fn below(&mut self, many: u64) -> u64 {
        self.next() % many.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        if self.0.is_none() {
            return;
        }
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    fn next(&mut self) -> u64 {
        let Some(state) = &mut self.0 else { return 0 };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
