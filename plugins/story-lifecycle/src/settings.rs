//! The plugin's configuration.

use cofferdam_sdk::{
    Failure, config,
    fleet::{Incoming, Timestamp},
};

use crate::machine::{Fault, Machine};

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

/// Whether it happened before stories became the plugin's to move. What it led to is in the stories' own messages.
pub(crate) fn is_history(message: &Incoming) -> Result<bool, Failure> {
    let Some(since) = config::get::<String>("since")? else { return Ok(false) };
    let read = Timestamp::read(&since.as_str().into());
    let since = read.ok_or_else(|| {
        Failure::retry(format!("config: since is {since:?}; write a time as 2026-01-31T08:00:00Z"))
    })?;
    Ok(message.arrival() < since)
}
