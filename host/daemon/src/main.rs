//! The daemon's story: read the config, build, run, drain.

use std::{io::Write, path::Path, process::ExitCode};

use clap::Parser;
use cofferdam::{
    app::App,
    cli::{Cli, Command},
    config::{Config, Environment},
    observe::logs,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let Cli { command: Command::Run { config } } = Cli::parse();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not a log line: whoever typed the command reads it, whatever the log level.
            let told = writeln!(std::io::stderr(), "cofferdam: {error:#}");
            drop(told);
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config, &Environment::of_process())?;
    logs::init(&config.log);
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
        let admin = app.admin()?;
        app.run(shutdown, || announce(&serde_json::json!({ "ready": true, "admin": admin.to_string() })))
            .await
    })
}

/// One line on stdout for whoever started the daemon and waits for it.
fn announce(line: &serde_json::Value) {
    tracing::info!(admin = line["admin"].as_str(), "ready");
    let mut out = std::io::stdout();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!("nobody reads stdout: {error}");
    }
}
