//! The plugin's configuration, as its manifest describes it and the operator set it.

use serde::de::DeserializeOwned;

use crate::sys;

/// A value is not of the type that the plugin expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the value of {key:?} is {value}, which can't be used: {reason}; correct it in the daemon's configuration, under config of this \
     plugin ([plugins.NAME.config])"
)]
pub struct ConfigError {
    pub key: String,
    /// JSON text.
    pub value: String,
    pub reason: String,
}

/// The value as JSON text; the manifest's default if the operator set none; `None` for a key that the manifest does
/// not name.
pub fn raw(key: &str) -> Option<String> {
    sys::config(key)
}

/// The value, typed.
pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, ConfigError> {
    let Some(value) = raw(key) else { return Ok(None) };
    match serde_json::from_str(&value) {
        Ok(typed) => Ok(Some(typed)),
        Err(error) => Err(ConfigError { key: key.into(), value, reason: error.to_string() }),
    }
}

/// The value, typed, or `default` where the manifest has none.
pub fn get_or<T: DeserializeOwned>(key: &str, default: impl Into<T>) -> Result<T, ConfigError> {
    Ok(get(key)?.unwrap_or_else(|| default.into()))
}
