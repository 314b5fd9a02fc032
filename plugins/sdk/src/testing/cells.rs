//! The cells of one state space, kept over runs; hosts of several plugins may share them.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

pub(super) type Cell = BTreeMap<String, Vec<u8>>;

/// Cells by name. A clone is the same cells, as for plugins that share a state space.
#[derive(Debug, Clone, Default)]
pub struct Cells(Rc<RefCell<BTreeMap<String, Cell>>>);

impl Cells {
    pub(super) fn read(&self, cell: &str) -> Cell {
        self.0.borrow().get(cell).cloned().unwrap_or_default()
    }

    pub(super) fn write(&self, cell: &str, state: Cell) {
        if state.is_empty() {
            self.0.borrow_mut().remove(cell);
        } else {
            self.0.borrow_mut().insert(cell.into(), state);
        }
    }

    /// The value of a key, as it is after the last successful run.
    pub fn get(&self, cell: &str, key: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(cell)?.get(key).cloned()
    }

    /// Sets a key beforehand.
    pub fn put(&self, cell: &str, key: &str, value: impl Into<Vec<u8>>) {
        self.0.borrow_mut().entry(cell.into()).or_default().insert(key.into(), value.into());
    }

    /// The cells that hold anything, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}
