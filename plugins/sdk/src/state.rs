//! The event's cell: a small map of state per order key. Writes are effects; reads see the handler's own writes.

use serde::{Serialize, de::DeserializeOwned};

use crate::sys;

/// Why a cell can't be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The subscription has no order key, or none was found in this event, so there is no cell.
    #[error("no cell: {0}")]
    NoCell(String),
    /// The manifest did not ask for state, or the operator did not grant it.
    #[error("denied: {0}")]
    Denied(String),
    /// Over a limit: the cell (default 512 KiB), a key (256 bytes), keys per cell (1,024).
    #[error("limit: {0}")]
    Limit(String),
    /// The value is there, but not of the type asked for: another version wrote it, or another plugin.
    #[error("the value of {key:?} can't be read: {reason}")]
    Unreadable { key: String, reason: String },
    /// The value given to [`save`] has no JSON form, such as a map with keys that are no strings.
    #[error("the value for {key:?} can't be written: {reason}")]
    Unwritable { key: String, reason: String },
}

pub fn get(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    sys::state_get(key)
}

pub fn put(key: &str, value: impl AsRef<[u8]>) -> Result<(), StateError> {
    sys::state_put(key, value.as_ref())
}

/// Deleting what is not there is fine.
pub fn delete(key: &str) -> Result<(), StateError> {
    sys::state_delete(key)
}

/// The keys that begin with `prefix`, sorted.
pub fn keys(prefix: &str) -> Result<Vec<String>, StateError> {
    sys::state_keys(prefix)
}

/// The value as JSON; `None` if the cell has no such key.
pub fn load<T: DeserializeOwned>(key: &str) -> Result<Option<T>, StateError> {
    let Some(bytes) = get(key)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StateError::Unreadable { key: key.into(), reason: error.to_string() })
}

/// Writes `value` as JSON.
pub fn save<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| StateError::Unwritable { key: key.into(), reason: error.to_string() })?;
    put(key, bytes)
}
