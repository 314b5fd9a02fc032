//! The plugin's configuration, read once per event.

use cofferdam_sdk::config::{ConfigError, get, get_or};

pub(crate) struct Settings {
    /// Nothing: the executor's default.
    pub(crate) model: Option<String>,
    pub(crate) temperature: f64,
    pub(crate) max_tokens: u32,
    pub(crate) timeout_seconds: u32,
    pub(crate) max_retries: u32,
    /// Before an attempt that follows another.
    pub(crate) backoff_seconds: u64,
    /// Derivations that one requester may open within the window; 0: any number.
    pub(crate) rate_limit: usize,
    pub(crate) rate_window_seconds: u64,
    pub(crate) min_tasks: u32,
    pub(crate) max_tasks: u32,
    pub(crate) role: String,
    pub(crate) context_phase: String,
    pub(crate) context_token_budget: i32,
    /// Nothing: the built-in one.
    pub(crate) template: Option<String>,
}

/// The executor's time-out for a job that names none.
const DEFAULT_TIMEOUT_SECONDS: u64 = 300;

/// They ride in the requester's cell.
const MOST_TURNS: usize = 5_000;

impl Settings {
    /// What an attempt may take.
    pub(crate) fn attempt_seconds(&self) -> u64 {
        match self.timeout_seconds {
            0 => DEFAULT_TIMEOUT_SECONDS,
            seconds => seconds.into(),
        }
    }

    /// Defaults as in the manifest.
    pub(crate) fn load() -> Result<Self, ConfigError> {
        let model: String = get_or("model", "Qwen/Qwen2.5-7B-Instruct")?;
        Ok(Self {
            model: Some(model).filter(|model| !model.trim().is_empty()),
            temperature: get_or("temperature", 0.3)?,
            max_tokens: get_or("max_tokens", 2048_u32)?,
            timeout_seconds: get_or("timeout_seconds", 120_u32)?,
            max_retries: get_or("max_retries", 3_u32)?,
            backoff_seconds: get_or("backoff_seconds", 5_u64)?,
            rate_limit: get_or::<usize>("rate_limit", 0_u16)?.min(MOST_TURNS),
            rate_window_seconds: get_or("rate_window_seconds", 60_u64)?,
            min_tasks: get_or("min_tasks", 3_u32)?,
            max_tasks: get_or("max_tasks", 8_u32)?,
            role: get_or("role", "SYSTEM")?,
            context_phase: get_or("context_phase", "PLAN")?,
            context_token_budget: get_or("context_token_budget", 2000)?,
            template: get("template")?,
        })
    }
}
