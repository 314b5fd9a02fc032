//! A fleet to run against: Planning and Context over SQLite, a Ray Executor with prepared answers, agents, and the tools to
//! work them. Stand-ins for the services around Cofferdam, reached over TCP only; they share no code with it but
//! the protocol.

mod admin;
mod agents;
mod bus;
mod cli;
mod client;
mod completions;
mod context;
mod events;
mod faults;
mod grpc;
mod lifecycle;
mod once;
mod outbox;
mod output;
mod plan_file;
mod planning;
mod ray;
mod roles;
mod serve;
mod shutdown;
mod store;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Cli, Command};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone too, the exit code says it all.
            writeln!(std::io::stderr(), "fleet: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    // The client library tells of each connection; so do we, in our words.
    let filter = EnvFilter::try_new(format!("async_nats=warn,{}", cli.log))
        .with_context(|| format!("{:?} is no log filter (--log or LOG_LEVEL)", cli.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(args, shutdown::on_signal()?)).await,
        Command::Plan(command) => client::run(command).await,
        Command::Context(command) => context::show::run(command).await,
        Command::Watch(args) => watch::run(args, shutdown::on_signal()?).await,
        Command::Ray(args) => ray::run(args, shutdown::on_signal()?).await,
        Command::Agents(args) => agents::run(args, shutdown::on_signal()?).await,
    }
}
