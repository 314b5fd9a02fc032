//! Which events of a durable are settled: all up to a floor, and single ones above it as bits, so that what is written
//! for one event stays small whatever else is under way.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fault::Fault,
    tables::{CHUNK, Chunk, DurableId, Tables},
};

#[derive(Debug, Default)]
pub(super) struct Settled {
    /// By sequence / [`CHUNK`].
    chunks: BTreeMap<u64, Chunk>,
    changed: BTreeSet<u64>,
}

impl Settled {
    pub(super) fn load(tables: &Tables<'_>, durable: DurableId) -> Result<Settled, Fault> {
        Ok(Settled { chunks: tables.settled(durable)?, changed: BTreeSet::new() })
    }

    pub(super) fn insert(&mut self, sequence: u64) {
        let chunk = self.chunks.entry(sequence / CHUNK).or_insert([0; _]);
        let (byte, bit) = place(sequence);
        if let Some(byte) = chunk.get_mut(byte) {
            *byte |= bit;
        }
        self.changed.insert(sequence / CHUNK);
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        let (byte, bit) = place(sequence);
        let chunk = self.chunks.get(&(sequence / CHUNK));
        chunk.and_then(|c| c.get(byte)).is_some_and(|byte| byte & bit != 0)
    }

    /// Writes what changed, and forgets what the floor covers.
    pub(super) fn save(
        &mut self,
        tables: &mut Tables<'_>,
        durable: DurableId,
        floor: u64,
    ) -> Result<(), Fault> {
        let above = self.chunks.split_off(&((floor + 1) / CHUNK));
        for at in std::mem::replace(&mut self.chunks, above).into_keys() {
            tables.delete_settled(durable, at)?;
        }
        for at in std::mem::take(&mut self.changed) {
            if let Some(chunk) = self.chunks.get(&at) {
                tables.put_settled(durable, at, chunk)?;
            }
        }
        Ok(())
    }
}

fn place(sequence: u64) -> (usize, u8) {
    let at = sequence % CHUNK;
    // Below 128.
    ((at / 8) as usize, 1 << (at % 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_bit_of_its_own() {
        let mut settled = Settled::default();
        let some = [1, 7, 8, 1023, 1024, 5000];
        for sequence in some {
            settled.insert(sequence);
        }
        for sequence in 0..6000 {
            assert_eq!(settled.contains(sequence), some.contains(&sequence), "{sequence}");
        }
    }
}
