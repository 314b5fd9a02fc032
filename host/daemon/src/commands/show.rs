//! `cofferdam config show`: the effective configuration, each value with where it comes from.

use std::path::PathBuf;

use crate::config::{Environment, Faults, Location, Reading};

pub fn show(file: Option<PathBuf>) -> anyhow::Result<()> {
    let location = Location::find(file);
    let Reading { faults, settings, .. } = Reading::of(&location, &Environment::of_process())?;
    if !faults.is_empty() {
        return Err(Faults(faults).into());
    }
    super::print(&format!(
        "# What `cofferdam run` goes by here: {location}, the environment, defaults.\n\
         # Each value says where it comes from.\n\n{settings}"
    ))?;
    Ok(())
}
