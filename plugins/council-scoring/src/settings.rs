//! The plugin's configuration, read once per call.

use cofferdam_sdk::{
    Failure,
    config::{ConfigError, get_or},
};
use serde::Deserialize;

use crate::policy::Rules;

/// Work is in proportion to a proposal's length; this is what the plugin's CPU time certainly allows for all of a request.
const MOST_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    Policy,
    Lint,
    Dryrun,
}

impl Check {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Lint => "lint",
            Self::Dryrun => "dryrun",
        }
    }
}

pub(crate) struct Settings {
    pub(crate) checks: Vec<Check>,
    pub(crate) rules: Rules,
    pub(crate) min_chars: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_tasks: usize,
}

impl Settings {
    /// Defaults as in the manifest.
    pub(crate) fn load() -> Result<Self, Failure> {
        let checks = get_or("checks", [Check::Policy, Check::Lint, Check::Dryrun])?;
        let given = get_or("rules", [])?;
        let rules = Rules::compile(get_or("default_rules", true)?, given).map_err(|fault| {
            Failure::retry(format!(
                "the configured rules can't be used: {fault}; correct `rules` of council-scoring"
            ))
        })?;
        Ok(Self {
            checks,
            rules,
            min_chars: count("min_chars", 10)?,
            max_bytes: count("max_bytes", 64 << 10)?.min(MOST_BYTES),
            max_tasks: count("max_tasks", 8)?,
        })
    }

    pub(crate) fn counts(&self, check: Check) -> bool {
        self.checks.contains(&check)
    }
}

fn count(key: &str, default: u32) -> Result<usize, ConfigError> {
    Ok(usize::try_from(get_or::<u32>(key, default)?).unwrap_or(usize::MAX))
}
