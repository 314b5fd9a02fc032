//! Random numbers that a failure can name: what a test leaves to chance follows from one seed, but for the timing of threads.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// With `$COFFERDAM_SEED`, else another seed each time.
    pub fn new() -> Dice {
        let given = std::env::var("COFFERDAM_SEED")
            .ok()
            .map(|seed| seed.parse().expect("a number in COFFERDAM_SEED"));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos();
        Dice::of(given.unwrap_or_else(|| u64::from(now() ^ std::process::id())))
    }

    pub fn of(seed: u64) -> Dice {
        Dice { seed, state: seed }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

impl Default for Dice {
    fn default() -> Dice {
        Dice::new()
    }
}
