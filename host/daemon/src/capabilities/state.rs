//! The event's cell: reads come from the snapshot that the run is based on, writes go to the commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_bus::{CellState, Write};
use cofferdam_sandbox::StateError;

use super::Run;
use crate::grants::Kind;

/// All keys and values of one cell; a cell is one message on the bus.
const MAX_CELL: usize = 512 << 10;
const MAX_KEY: usize = 256;
const MAX_KEYS: usize = 1_024;

/// A cell as one run sees it.
#[derive(Debug, Default)]
pub struct Cell {
    base: BTreeMap<String, Bytes>,
    /// `None`: deleted.
    written: BTreeMap<String, Option<Bytes>>,
}

impl Cell {
    pub fn new(state: CellState) -> Self {
        Self { base: state.entries, written: BTreeMap::new() }
    }

    fn get(&self, key: &str) -> Option<&Bytes> {
        match self.written.get(key) {
            Some(written) => written.as_ref(),
            None => self.base.get(key),
        }
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        let kept = self.base.keys().filter(|k| !self.written.contains_key(*k));
        kept.chain(self.written.iter().filter(|(_, v)| v.is_some()).map(|(k, _)| k))
    }

    pub(super) fn size(&self) -> usize {
        self.keys().map(|k| k.len() + self.get(k).map_or(0, Bytes::len)).sum()
    }

    /// What differs from the base.
    pub(super) fn into_writes(self) -> Vec<Write> {
        let base = self.base;
        self.written
            .into_iter()
            .filter(|(key, value)| base.get(key) != value.as_ref())
            .map(|(key, value)| match value {
                Some(value) => Write::Put { key, value },
                None => Write::Delete { key },
            })
            .collect()
    }
}

impl Run {
    fn cell(&mut self) -> Result<&mut Cell, StateError> {
        let space = self.plugin.space.clone();
        self.granted(Kind::State, &space).map_err(|denial| StateError::Denied(denial.to_string()))?;
        self.state.as_mut().ok_or_else(|| {
            StateError::NoCell(
                "this event has no order key, so it has no cell; give its subscription one".into(),
            )
        })
    }

    pub(super) fn state_get(&mut self, key: &str) -> Result<Option<Bytes>, StateError> {
        Ok(self.cell()?.get(key).cloned())
    }

    pub(super) fn state_put(&mut self, key: String, value: Bytes) -> Result<(), StateError> {
        check_key(&key)?;
        let room = self.room();
        let cell = self.cell()?;
        let before = cell.get(&key).map(|v| v.len() + key.len());
        if before.is_none() && cell.keys().count() >= MAX_KEYS {
            return Err(StateError::Limit(format!("a cell has at most {MAX_KEYS} keys")));
        }
        let size = cell.size() - before.unwrap_or(0) + key.len() + value.len();
        if size > MAX_CELL || size > cell.size() + room {
            return Err(StateError::Limit(format!(
                "the cell would have {size} bytes, more than {MAX_CELL} or than this event's commit has room for"
            )));
        }
        cell.written.insert(key, Some(value));
        Ok(())
    }

    pub(super) fn state_delete(&mut self, key: String) -> Result<(), StateError> {
        check_key(&key)?;
        let cell = self.cell()?;
        // What is not there needs no deleting, and no memory.
        if cell.get(&key).is_some() {
            cell.written.insert(key, None);
        }
        Ok(())
    }

    pub(super) fn state_keys(&mut self, prefix: &str) -> Result<Vec<String>, StateError> {
        let mut keys: Vec<String> = self.cell()?.keys().filter(|k| k.starts_with(prefix)).cloned().collect();
        keys.sort_unstable();
        Ok(keys)
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(StateError::Limit(format!("a key has 1 to {MAX_KEY} bytes, this one {}", key.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(entries: &[(&str, &'static str)]) -> Cell {
        Cell::new(CellState {
            entries: entries.iter().map(|(k, v)| (k.to_string(), Bytes::from_static(v.as_bytes()))).collect(),
        })
    }

    #[test]
    fn a_write_that_changes_nothing_is_none() {
        let mut cell = cell(&[("a", "1"), ("b", "2")]);
        cell.written.insert("a".into(), Some(Bytes::from_static(b"1")));
        cell.written.insert("c".into(), None);
        cell.written.insert("b".into(), None);
        assert_eq!(cell.into_writes(), [Write::Delete { key: "b".into() }]);
    }

    #[test]
    fn reads_see_the_runs_own_writes() {
        let mut cell = cell(&[("a", "1")]);
        cell.written.insert("a".into(), None);
        cell.written.insert("b".into(), Some(Bytes::from_static(b"2")));
        assert_eq!(cell.get("a"), None);
        assert_eq!(cell.keys().collect::<Vec<_>>(), ["b"]);
    }
}
