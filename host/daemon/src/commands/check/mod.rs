//! `cofferdam check`: the configuration against the plugins that it names. Whatever `run` would refuse or warn of before it
//! connects is told at once, and nothing is connected, bound or left behind.

mod examine;
mod finding;
mod report;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use crate::config::{Environment, Location, Reading};

pub fn check(file: Option<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let location = Location::find(file);
    let told = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(told(
        &location,
        &Environment::of_process(),
        json,
    ));
    super::print(&told.text)?;
    Ok(if told.fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Told {
    fine: bool,
    text: String,
}

async fn told(location: &Location, environment: &Environment, json: bool) -> Told {
    let (report, config) = match Reading::of(location, environment) {
        Ok(reading) => (examine::examine(location, &reading).await, Some(reading.config)),
        Err(faults) => (examine::Report::of_faults(faults.0), None),
    };
    let text = match json {
        true => report::json(location, &report, config.as_ref()),
        false => report::text(location, &report, config.as_ref()),
    };
    Told { fine: report.fine(), text }
}
