//! The plugin's configuration.

use cofferdam_sdk::config::{self, ConfigError};
use serde::Deserialize;

/// Which tasks of a story that becomes ready are assigned at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssignPolicy {
    #[default]
    First,
    All,
}

pub(crate) fn assign_policy() -> Result<AssignPolicy, ConfigError> {
    Ok(config::get("assign_policy")?.unwrap_or_default())
}
