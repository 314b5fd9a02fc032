//! The plugin's configuration, read once per event.

use cofferdam_sdk::config::{ConfigError, get, get_or};

pub(crate) struct Settings {
    /// Nothing: the executor's default.
    pub(crate) model: Option<String>,
    pub(crate) temperature: f64,
    pub(crate) max_tokens: u32,
    pub(crate) timeout_seconds: u32,
    pub(crate) max_retries: u32,
    pub(crate) min_tasks: u32,
    pub(crate) max_tasks: u32,
    pub(crate) role: String,
    pub(crate) context_phase: String,
    pub(crate) context_token_budget: i32,
    /// Nothing: the built-in one.
    pub(crate) template: Option<String>,
}

impl Settings {
    /// Defaults as in the manifest.
    pub(crate) fn load() -> Result<Self, ConfigError> {
        let model: String = get_or("model", "Qwen/Qwen2.5-7B-Instruct")?;
        Ok(Self {
            model: Some(model).filter(|model| !model.trim().is_empty()),
            temperature: get_or("temperature", 0.3)?,
            max_tokens: get_or("max_tokens", 2048_u32)?,
            timeout_seconds: get_or("timeout_seconds", 120_u32)?,
            max_retries: get_or("max_retries", 3_u32)?,
            min_tasks: get_or("min_tasks", 3_u32)?,
            max_tasks: get_or("max_tasks", 8_u32)?,
            role: get_or("role", "SYSTEM")?,
            context_phase: get_or("context_phase", "PLAN")?,
            context_token_budget: get_or("context_token_budget", 2000)?,
            template: get("template")?,
        })
    }
}
