//! The plugin's configuration.

use cofferdam_sdk::{
    Failure,
    config::{self, ConfigError},
};
use serde::Deserialize;

use crate::machine::{Fault, Machine};

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

/// The operator's table, else the fleet's.
pub(crate) fn machine() -> Result<Machine, Failure> {
    let machine = match config::get::<String>("machine")? {
        Some(table) => Machine::read(&table),
        None => Machine::standard(),
    };
    machine.map_err(|faults| {
        let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
        Failure::retry(format!("the configured machine can't be used: {}", told.join("; ")))
    })
}
