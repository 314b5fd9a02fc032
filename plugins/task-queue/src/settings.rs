//! The plugin's configuration.

use cofferdam_sdk::{
    Failure,
    config::{self, ConfigError},
    fleet::{Incoming, Timestamp},
};

/// Seconds that an assigned task waits for Planning to tell of it.
pub(crate) fn assignment_grace() -> Result<u64, ConfigError> {
    config::get_or("assignment_grace_seconds", 5_u32)
}

/// Seconds from when a task goes, and again from when it was dispatched, until it is given up.
pub(crate) fn in_progress_timeout() -> Result<u64, ConfigError> {
    config::get_or("in_progress_timeout_seconds", 300_u32)
}

/// How many tasks may be in progress at once; nothing for as many as are ready.
pub(crate) fn max_in_progress() -> Result<Option<usize>, ConfigError> {
    let most: u32 = config::get_or("max_in_progress", 1_u32)?;
    Ok((most > 0).then_some(most as usize))
}

/// Of tasks that say nothing of it.
pub(crate) fn requires_pre_deliberation() -> Result<bool, ConfigError> {
    config::get_or("requires_pre_deliberation", true)
}

/// Whether it happened before there was this queue, so that it is nothing to begin now.
pub(crate) fn is_history(message: &Incoming) -> Result<bool, Failure> {
    let Some(since) = config::get::<String>("since")? else { return Ok(false) };
    let read = Timestamp::read(&since.as_str().into());
    let since = read.ok_or_else(|| {
        Failure::retry(format!("config: since is {since:?}; write a time as 2026-01-31T08:00:00Z"))
    })?;
    Ok(message.arrival() < since)
}
