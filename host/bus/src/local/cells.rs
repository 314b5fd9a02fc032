//! The cells that a commit touches, compared with what its run saw, and as they are to be.

use super::{fault::Fault, rows::CellRow, tables::Tables};
use crate::api::{CellState, OtherCell, Point, Write};

pub(super) struct Cells {
    own: Option<Changed>,
    others: Vec<Changed>,
}

struct Changed {
    space: String,
    name: String,
    /// When the run began.
    revision: u64,
    state: CellState,
    /// If not, it was only read.
    written: bool,
}

impl Cells {
    /// `None` if one of them has changed since the run saw it.
    pub(super) fn changed(
        tables: &Tables<'_>,
        point: Point,
        revision: u64,
        writes: Vec<Write>,
        others: Vec<OtherCell>,
    ) -> Result<Option<Cells>, Fault> {
        let mut cells = Cells { own: None, others: Vec::with_capacity(others.len()) };
        if let Point::Cell { space, cell } = point {
            cells.own = Changed::from(tables, space, cell, revision, writes)?;
            if cells.own.is_none() {
                return Ok(None);
            }
        }
        for other in others {
            match Changed::from(tables, other.space, other.cell, other.revision, other.writes)? {
                Some(changed) => cells.others.push(changed),
                None => return Ok(None),
            }
        }
        Ok(Some(cells))
    }

    /// Where a server keeps them, the own one shares a message with the effects, and each other is a message.
    pub(super) fn largest_message(&self, effects: usize) -> usize {
        let own = self.own.as_ref().filter(|own| own.written).map_or(0, |own| own.state.bytes());
        let others = self.others.iter().filter(|other| other.written).map(|other| other.state.bytes());
        others.fold(effects + own, usize::max)
    }

    pub(super) fn put(self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        for cell in self.own.into_iter().chain(self.others).filter(|cell| cell.written) {
            let row = CellRow { revision: cell.revision + 1, entries: cell.state.entries };
            tables.put_cell(&cell.space, &cell.name, &row)?;
        }
        Ok(())
    }
}

impl Changed {
    fn from(
        tables: &Tables<'_>,
        space: String,
        name: String,
        revision: u64,
        writes: Vec<Write>,
    ) -> Result<Option<Changed>, Fault> {
        let row = tables.cell(&space, &name)?.unwrap_or_default();
        if row.revision != revision {
            return Ok(None);
        }
        let written = !writes.is_empty();
        let mut state = CellState { entries: row.entries };
        state.write(writes);
        Ok(Some(Changed { space, name, revision, state, written }))
    }
}
