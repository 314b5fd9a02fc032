//! The plugin's configuration.

use cofferdam_sdk::{Failure, config};

/// Whether `context.updated` is ours to tell.
pub(crate) fn publishes_updates() -> Result<bool, Failure> {
    Ok(config::get_or("publish_updates", true)?)
}
