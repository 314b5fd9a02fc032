//! The plugin's configuration.

use cofferdam_sdk::config::{self, ConfigError};

/// What a council has that nobody says more of, and how the plugin goes about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Roles that have a council, as they were written.
    pub(crate) councils: Vec<String>,
    pub(crate) agents: u32,
    pub(crate) rounds: u32,
    /// `None`: the executor's default.
    pub(crate) model: Option<String>,
    pub(crate) temperature: f32,
    /// `None`: the endpoint's own.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) timeout_seconds: u32,
    pub(crate) architect_k: usize,
}

impl Settings {
    pub(crate) fn read() -> Result<Self, ConfigError> {
        let model: String = config::get_or("model", "")?;
        let max_tokens: u32 = config::get_or("max_tokens", 0_u32)?;
        let architect_k: u32 = config::get_or("architect_k", 3_u32)?;
        Ok(Self {
            councils: config::get("councils")?.unwrap_or_default(),
            agents: config::get_or("agents", 3_u32)?,
            rounds: config::get_or("rounds", 1_u32)?,
            model: Some(model).filter(|model| !model.trim().is_empty()),
            temperature: config::get_or("temperature", 0.7_f32)?,
            max_tokens: Some(max_tokens).filter(|tokens| *tokens > 0),
            timeout_seconds: config::get_or("timeout_seconds", 300_u32)?,
            architect_k: usize::try_from(architect_k).unwrap_or(usize::MAX).max(1),
        })
    }
}

/// For how long a deliberation that is over is told of.
pub(crate) fn kept_seconds() -> Result<u64, ConfigError> {
    config::get_or("kept_seconds", 3_600_u64)
}

/// Whether the councils of a plan's roles are asked about it.
pub(crate) fn deliberate_plans() -> Result<bool, ConfigError> {
    config::get_or("deliberate_plans", true)
}
