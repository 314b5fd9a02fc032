//! `cofferdam run`, the daemon's story: read the config, build, run, drain.

use std::path::PathBuf;

use crate::{
    app::App,
    config::{Config, Environment, Location},
    observe::logs,
};

use super::life::{announce, live, place};

pub fn run(file: Option<PathBuf>) -> anyhow::Result<()> {
    let location = Location::find(file);
    let config = Config::load(&location, &Environment::of_process())?;
    logs::init(&config.log);
    tell(&location, &config);
    live(async |shutdown| {
        let app = tokio::select! {
            app = App::build(config) => app?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (admin, grpc, bus) = (app.admin()?.to_string(), app.grpc()?, app.bus());
        let mut line = serde_json::json!({ "ready": true, "admin": admin, "grpc": grpc, "bus": bus });
        let executor = app.executor()?;
        if !executor.is_empty() {
            line["executor"] = serde_json::json!(executor);
        }
        app.run(shutdown, || announce(&line)).await
    })
}

/// Which configuration it is, and where the data is.
fn tell(location: &Location, config: &Config) {
    let bus = place(config);
    match location {
        Location::BuiltIn => tracing::info!(
            "running on the built-in configuration: no --config was given and no cofferdam.toml with anything in it is \
             here (`cofferdam config show > cofferdam.toml` writes one to begin with); {bus}"
        ),
        Location::File(file) => {
            tracing::info!(config = %file.display(), "configured by {}; {bus}", file.display())
        }
    }
    if config.plugins.is_empty() {
        tracing::warn!(
            "no plugins are configured, so no event is handled; add [plugins.NAME] for each to {location}"
        );
    }
}
