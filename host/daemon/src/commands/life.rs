//! What every process needs that runs until it is told to stop: signals, where its data is, and the line that says that it
//! is ready.

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{BusKind, Config};

/// Runs it on all cores. The token that it gets is cancelled by SIGTERM or Ctrl-C; a second one ends the process.
pub(super) fn live(run: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
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
        run(shutdown).await
    })
}

/// Whoever typed no more than the command is to know where the data is.
pub(super) fn place(config: &Config) -> String {
    match &config.bus.kind {
        BusKind::Local { directory } => {
            let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
            format!("the embedded bus, data in {}", directory.display())
        }
        BusKind::Nats(nats) => {
            let urls: Vec<String> = nats.urls.iter().map(ToString::to_string).collect();
            format!("NATS at {}", urls.join(", "))
        }
    }
}

/// One line on stdout for whoever started the process and waits for it.
pub(super) fn announce(line: &serde_json::Value) {
    tracing::info!(admin = line["admin"].as_str(), grpc = %line["grpc"], bus = line["bus"].as_str(), "ready");
    let mut out = std::io::stdout();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!("nobody reads stdout: {error}");
    }
}
