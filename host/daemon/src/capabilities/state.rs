//! Cells of state. Reads come from what was read first: of the event's own cell, the snapshot that the run is based on; of another,
//! what it was when the run first asked for it. Writes go to the commit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam_bus::{CellState, MAX_OTHERS, OtherCell, Point, Snapshot, Write};
use cofferdam_sandbox::StateError;

use super::{COMMIT_OVERHEAD, Run};
use crate::grants::Kind;

/// All keys and values of one cell; a cell is one message on the bus.
const MAX_CELL: usize = 512 << 10;
const MAX_KEY: usize = 256;
const MAX_KEYS: usize = 1_024;
/// Of a cell's name.
const MAX_NAME: usize = 1_024;
/// All other cells of one run, as they were read, and again as it leaves them: they are held in memory.
const MAX_OTHERS_SIZE: usize = 4 << 20;
/// What a read takes at most while the bus is in reach: a run that is stopped earlier ran out of its own time. Else one that
/// reads just before its end would be run for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cells that one run can reach.
#[derive(Debug, Default)]
pub struct State {
    /// With its name.
    own: Option<(String, Cell)>,
    /// By name.
    others: BTreeMap<String, (OtherCell, Cell)>,
    /// The own cell of a call that only reads, which is read as others are.
    named: Option<String>,
    /// It has no part in the event's commit.
    excluded: bool,
    /// Why a cell could not be had: then nothing follows from how the run ends.
    missing: Option<String>,
    /// The cell that is being read, and since when: a run that is stopped leaves it here.
    reading: Option<(String, Instant)>,
}

impl State {
    pub fn of(snapshot: &Snapshot) -> Self {
        let own = match &snapshot.point {
            Point::Cell { cell, .. } => Some((cell.clone(), Cell::new(snapshot.state.clone()))),
            _ => None,
        };
        Self { own, excluded: snapshot.point == Point::Publish, ..Self::default() }
    }

    /// Of a call that only reads: cells are read when it asks for them.
    pub fn to_read(own: Option<String>) -> Self {
        Self { named: own, ..Self::default() }
    }

    /// What is in the commit point along with the effects.
    pub(super) fn size(&self) -> usize {
        self.own.as_ref().map_or(0, |(_, cell)| cell.size())
    }

    fn is_own(&self, name: &str) -> bool {
        self.own.as_ref().is_some_and(|(own, _)| own == name)
    }

    /// Why nothing follows from how the run ended: a cell could not be had, or the bus was out of reach when it was stopped.
    fn excuse(&self) -> Option<String> {
        let unread = || {
            let (name, _) = self.reading.as_ref().filter(|(_, since)| since.elapsed() > PATIENCE)?;
            Some(format!("the cell {name:?} could not be read in the event's time"))
        };
        self.missing.clone().or_else(unread)
    }

    /// Writes to the own cell, the others, and what excuses the run.
    pub(super) fn into_parts(self) -> (Vec<Write>, Vec<OtherCell>, Option<String>) {
        let excuse = self.excuse();
        let others = self.others.into_values().map(|(mut other, cell)| {
            other.writes = cell.writes();
            other.state.entries = cell.base;
            other
        });
        let writes = self.own.map(|(_, cell)| cell.writes()).unwrap_or_default();
        (writes, others.collect(), excuse)
    }
}

/// A cell as one run sees it.
#[derive(Debug, Default)]
struct Cell {
    base: BTreeMap<String, Bytes>,
    /// `None`: deleted.
    written: BTreeMap<String, Option<Bytes>>,
}

impl Cell {
    fn new(state: CellState) -> Self {
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

    fn size(&self) -> usize {
        self.keys().map(|k| k.len() + self.get(k).map_or(0, Bytes::len)).sum()
    }

    fn base_size(&self) -> usize {
        self.base.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// What differs from the base.
    fn writes(&self) -> Vec<Write> {
        let changes = self.written.iter().filter(|(key, value)| self.base.get(*key) != value.as_ref());
        let write = |(key, value): (&String, &Option<Bytes>)| match value.clone() {
            Some(value) => Write::Put { key: key.clone(), value },
            None => Write::Delete { key: key.clone() },
        };
        changes.map(write).collect()
    }
}

impl Run {
    async fn cell(&mut self, name: Option<&str>) -> Result<&mut Cell, StateError> {
        let space = self.plugin.space.clone();
        self.granted(Kind::State, &space).map_err(|denial| StateError::Denied(denial.to_string()))?;
        if self.state.excluded {
            return Err(StateError::NoCell(
                "this event commits by publish, which goes without state; leave commit out of its subscription".into(),
            ));
        }
        let named = self.state.named.clone();
        match name.or(named.as_deref()) {
            Some(name) if !self.state.is_own(name) => self.other(&space, name).await,
            _ => match &mut self.state.own {
                Some((_, cell)) => Ok(cell),
                None => Err(StateError::NoCell(
                    "this event has no order key, so it has no cell of its own; give its subscription one, or its method a key"
                        .into(),
                )),
            },
        }
    }

    /// Another cell; read when the run first asks for it.
    async fn other(&mut self, space: &str, name: &str) -> Result<&mut Cell, StateError> {
        if name.is_empty() || name.len() > MAX_NAME {
            let size = name.len();
            return Err(StateError::Limit(format!(
                "a cell's name has 1 to {MAX_NAME} bytes, this one {size}"
            )));
        }
        if !self.state.others.contains_key(name) {
            if self.state.others.len() >= MAX_OTHERS {
                return Err(StateError::Limit(format!("an event reaches at most {MAX_OTHERS} other cells")));
            }
            let mut other = self.read(space, name).await?;
            let cell = Cell::new(std::mem::take(&mut other.state));
            let held = self.state.others.values().map(|(_, cell)| cell.base_size()).sum::<usize>();
            if held + cell.base_size() > MAX_OTHERS_SIZE {
                return Err(StateError::Limit(format!(
                    "the other cells of an event have at most {MAX_OTHERS_SIZE} bytes together"
                )));
            }
            self.state.others.insert(name.to_owned(), (other, cell));
        }
        match self.state.others.get_mut(name) {
            Some((_, cell)) => Ok(cell),
            None => Err(StateError::NoCell(name.to_owned())),
        }
    }

    /// While the bus is out of reach this waits, and may be cut off by the run's time.
    async fn read(&mut self, space: &str, name: &str) -> Result<OtherCell, StateError> {
        self.state.reading = Some((name.to_owned(), Instant::now()));
        let bus = &self.services.bus;
        let read = match self.occasion.only_reads {
            None => bus.cell(space, name).await,
            Some(_) => bus.peek(space, name).await,
        };
        self.state.reading = None;
        match read {
            Ok(other) => {
                self.state.missing = None;
                Ok(other)
            }
            Err(error) => {
                let reason = format!("the cell {name:?} can't be read: {error}");
                self.state.missing = Some(reason.clone());
                Err(StateError::NoCell(reason))
            }
        }
    }

    /// What a cell may grow by, in bytes: the own one shares a message with the effects, the others their bound.
    fn room_in(&self, name: Option<&str>) -> usize {
        match name {
            Some(name) if !self.state.is_own(name) => {
                let size = self.state.others.get(name).map_or(0, |(_, cell)| cell.size());
                let room = self.services.bus.max_commit().saturating_sub(COMMIT_OVERHEAD + size);
                room.min(left_of_others(self.state.others.values().map(|(_, cell)| cell)))
            }
            _ => self.room(),
        }
    }

    pub(super) async fn state_get(
        &mut self,
        cell: Option<&str>,
        key: &str,
    ) -> Result<Option<Bytes>, StateError> {
        Ok(self.cell(cell).await?.get(key).cloned())
    }

    pub(super) async fn state_put(
        &mut self,
        name: Option<&str>,
        key: String,
        value: Bytes,
    ) -> Result<(), StateError> {
        self.may_have_effects().map_err(StateError::Denied)?;
        check_key(&key)?;
        self.cell(name).await?;
        let room = self.room_in(name);
        let cell = self.cell(name).await?;
        let before = cell.get(&key).map(|v| v.len() + key.len());
        if before.is_none() && cell.keys().count() >= MAX_KEYS {
            return Err(StateError::Limit(format!("a cell has at most {MAX_KEYS} keys")));
        }
        let size = cell.size() - before.unwrap_or(0) + key.len() + value.len();
        if size > MAX_CELL || size > cell.size() + room {
            return Err(StateError::Limit(format!(
                "the cell would have {size} bytes, more than {MAX_CELL}, than this event's commit has room for, or than is \
                 left of the {MAX_OTHERS_SIZE} of all its other cells"
            )));
        }
        cell.written.insert(key, Some(value));
        Ok(())
    }

    pub(super) async fn state_delete(&mut self, cell: Option<&str>, key: String) -> Result<(), StateError> {
        self.may_have_effects().map_err(StateError::Denied)?;
        check_key(&key)?;
        let cell = self.cell(cell).await?;
        // What is not there needs no deleting, and no memory.
        if cell.get(&key).is_some() {
            cell.written.insert(key, None);
        }
        Ok(())
    }

    pub(super) async fn state_keys(
        &mut self,
        cell: Option<&str>,
        prefix: &str,
    ) -> Result<Vec<String>, StateError> {
        let cell = self.cell(cell).await?;
        let mut keys: Vec<String> = cell.keys().filter(|k| k.starts_with(prefix)).cloned().collect();
        keys.sort_unstable();
        Ok(keys)
    }
}

/// What the other cells of a run may grow by together, in bytes.
fn left_of_others<'a>(cells: impl Iterator<Item = &'a Cell>) -> usize {
    MAX_OTHERS_SIZE.saturating_sub(cells.map(Cell::size).sum())
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
    fn a_call_that_reads_has_its_cell_among_the_others() {
        let state = State::to_read(Some("a".into()));
        assert!(state.own.is_none() && !state.is_own("a"));
        assert_eq!((state.named.as_deref(), state.size()), (Some("a"), 0));
    }

    #[test]
    fn a_write_that_changes_nothing_is_none() {
        let mut cell = cell(&[("a", "1"), ("b", "2")]);
        cell.written.insert("a".into(), Some(Bytes::from_static(b"1")));
        cell.written.insert("c".into(), None);
        cell.written.insert("b".into(), None);
        assert_eq!(cell.writes(), [Write::Delete { key: "b".into() }]);
    }

    #[test]
    fn a_run_that_is_stopped_while_it_reads_is_excused_only_if_the_bus_let_it_wait() {
        let reading = |ago| State {
            reading: Instant::now().checked_sub(ago).map(|since| ("c".to_owned(), since)),
            ..State::default()
        };
        assert_eq!(State::default().excuse(), None);
        assert_eq!(reading(Duration::ZERO).into_parts().2, None);
        let why = reading(PATIENCE + Duration::from_secs(1)).into_parts().2.unwrap();
        assert!(why.contains("\"c\" could not be read"), "{why}");
        let failed = State { missing: Some("no".into()), ..reading(Duration::ZERO) };
        assert_eq!(failed.into_parts().2.as_deref(), Some("no"));
    }

    #[test]
    fn other_cells_have_one_bound_together_whether_read_or_written() {
        let full = || {
            let mut cell = cell(&[("k", "12345")]);
            cell.written.insert("w".into(), Some(vec![0; MAX_CELL - 7].into()));
            cell
        };
        let cells: Vec<Cell> = std::iter::repeat_with(full).take(MAX_OTHERS_SIZE / MAX_CELL + 1).collect();
        assert_eq!(left_of_others([].iter()), MAX_OTHERS_SIZE);
        assert_eq!(left_of_others(cells[..2].iter()), MAX_OTHERS_SIZE - 2 * MAX_CELL);
        assert_eq!(left_of_others(cells.iter()), 0);
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
