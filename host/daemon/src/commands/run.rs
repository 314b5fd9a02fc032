//! `cofferdam run`, the daemon's story: read the config, build, run, drain.

use std::{io::Write, path::PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config::{BusKind, Config, Environment, Location},
    observe::logs,
};

pub fn run(file: Option<PathBuf>) -> anyhow::Result<()> {
    let location = Location::find(file);
    let config = Config::load(&location, &Environment::of_process())?;
    logs::init(&config.log);
    tell(&location, &config);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Asked twice: what runs comes again after the ack wait, as after a crash.
            std::process::exit(130);
        });
        let app = tokio::select! {
            app = App::build(config) => app?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (admin, grpc, bus) = (app.admin()?.to_string(), app.grpc()?, app.bus());
        let line = serde_json::json!({ "ready": true, "admin": admin, "grpc": grpc, "bus": bus });
        app.run(shutdown, || announce(&line)).await
    })
}

/// Which configuration it is, and where the data is: whoever typed no more than `run` is to know.
fn tell(location: &Location, config: &Config) {
    let bus = match &config.bus.kind {
        BusKind::Local { directory } => {
            let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
            format!("the embedded bus, data in {}", directory.display())
        }
        BusKind::Nats(nats) => {
            let urls: Vec<String> = nats.urls.iter().map(ToString::to_string).collect();
            format!("NATS at {}", urls.join(", "))
        }
    };
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

/// One line on stdout for whoever started the daemon and waits for it.
fn announce(line: &serde_json::Value) {
    tracing::info!(admin = line["admin"].as_str(), grpc = %line["grpc"], bus = line["bus"].as_str(), "ready");
    let mut out = std::io::stdout();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!("nobody reads stdout: {error}");
    }
}
