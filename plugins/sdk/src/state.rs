//! Cells: small maps of state. The functions here are for the event's own cell, that of its order key; [`cell`] is any other of
//! the plugin's state space. Writes are effects, to all cells together; reads see the handler's own writes.

use serde::{Serialize, de::DeserializeOwned};

use crate::sys;

/// Why a cell can't be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The subscription has no order key, or none was found in this event, so it has no cell of its own. Or it commits by
    /// `publish`, which goes without state. Or the host can't read the cell now; the event is handed back then, whatever
    /// the handler returns.
    #[error("no cell: {0}")]
    NoCell(String),
    /// The manifest did not ask for state, or the operator did not grant it.
    #[error("denied: {0}")]
    Denied(String),
    /// Over a limit: the cell (default 512 KiB), a key (256 bytes), keys per cell (1,024), a cell's name (1 to 1,024
    /// bytes), other cells per event (64, of 4 MiB together).
    #[error("limit: {0}")]
    Limit(String),
    /// The value is there, but not of the type asked for: another version wrote it, or another plugin.
    #[error("the value of {key:?} can't be read: {reason}")]
    Unreadable { key: String, reason: String },
    /// The value given to [`save`] has no JSON form, such as a map with keys that are no strings.
    #[error("the value for {key:?} can't be written: {reason}")]
    Unwritable { key: String, reason: String },
}

/// A cell of the plugin's state space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(Option<String>);

/// The cell of this name, which is what the subscription's `cell` makes of an order key. Events without an order key reach
/// cells so, too.
///
/// Cells are read one by one, when the event first asks. If one that it read or wrote has been changed by others by the
/// time it commits, it runs again; so it does if it fails over what it read of several.
///
/// ```
/// use cofferdam_sdk::{Event, Failure, delivery, state};
///
/// /// Moves one from the account of the order key to the one that the event names.
/// fn handle(event: Event) -> Result<(), Failure> {
///     let to = state::cell(String::from_utf8_lossy(&event.data));
///     let (mine, theirs): (u64, u64) = (state::load("sum")?.unwrap_or(0), to.load("sum")?.unwrap_or(0));
///     let mine = mine.checked_sub(1).ok_or_else(|| Failure::reject("nothing is left"))?;
///     state::save("sum", &mine)?;
///     to.save("sum", &(theirs + 1))?;
///     Ok(())
/// }
/// # let mut host = cofferdam_sdk::testing::Host::new().order_key("a");
/// # host.set_value("a", "sum", &3);
/// # host.run(handle, cofferdam_sdk::testing::event("move", "b"));
/// # assert_eq!((host.value("a", "sum"), host.value("b", "sum")), (Some(2), Some(1)));
/// ```
pub fn cell(name: impl Into<String>) -> Cell {
    Cell(Some(name.into()))
}

const OWN: Cell = Cell(None);

impl Cell {
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        sys::state_get(self.0.as_deref(), key)
    }

    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), StateError> {
        sys::state_put(self.0.as_deref(), key, value.as_ref())
    }

    /// Deleting what is not there is fine.
    pub fn delete(&self, key: &str) -> Result<(), StateError> {
        sys::state_delete(self.0.as_deref(), key)
    }

    /// The keys that begin with `prefix`, sorted.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>, StateError> {
        sys::state_keys(self.0.as_deref(), prefix)
    }

    /// The value as JSON; `None` if the cell has no such key.
    pub fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.get(key)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::Unreadable { key: key.into(), reason: error.to_string() })
    }

    /// Writes `value` as JSON.
    pub fn save<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| StateError::Unwritable { key: key.into(), reason: error.to_string() })?;
        self.put(key, bytes)
    }
}

pub fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    OWN.get(key)
}

pub fn put(key: &str, value: impl AsRef<[u8]>) -> Result<(), StateError> {
    OWN.put(key, value)
}

/// Deleting what is not there is fine.
pub fn delete(key: &str) -> Result<(), StateError> {
    OWN.delete(key)
}

/// The keys that begin with `prefix`, sorted.
pub fn keys(prefix: &str) -> Result<Vec<String>, StateError> {
    OWN.keys(prefix)
}

/// The value as JSON; `None` if the cell has no such key.
pub fn load<T: DeserializeOwned>(key: &str) -> Result<Option<T>, StateError> {
    OWN.load(key)
}

/// Writes `value` as JSON.
pub fn save<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), StateError> {
    OWN.save(key, value)
}
