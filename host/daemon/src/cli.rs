//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::client::{DlqCommand, JobsCommand, PubArgs, SubArgs};

/// Runs events of a fleet through sandboxed WASM plugins.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Of this process. A mistake in it ends the process with its exit code, 2.
    pub fn of_process() -> Self {
        let cli = Self::parse();
        let (path, wrong) = match &cli.command {
            Command::Sub(args) => (vec!["sub"], args.check().err()),
            Command::Dlq(command) => match command.check() {
                Ok(()) => (Vec::new(), None),
                Err((name, wrong)) => (vec!["dlq", name], Some(wrong)),
            },
            _ => (Vec::new(), None),
        };
        if let Some(wrong) = wrong {
            let mut usage = Self::command();
            for name in path {
                usage = usage.find_subcommand(name).cloned().unwrap_or(usage);
            }
            usage.error(ErrorKind::ValueValidation, wrong).exit();
        }
        cli
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the daemon until SIGTERM or Ctrl-C, then drains.
    Run(ConfigArgs),
    /// Works jobs of plugins and clients until SIGTERM or Ctrl-C, on a bus that it shares with daemons. Loads no plugin.
    Executor(ConfigArgs),
    /// Checks the configuration against the plugins that it names. Connects to nothing and binds nothing.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Tells about the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Works on the durables of the configured bus, without a daemon.
    #[command(subcommand)]
    Durable(DurableCommand),
    /// Lists, shows, redrives and drops dead letters, through a running daemon.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Lists, shows, cancels and watches jobs, through a running daemon or executor.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Publishes a message through a running daemon.
    #[command(override_usage = "cofferdam pub [OPTIONS] <SUBJECT> <DATA>\n       \
                                cofferdam pub [OPTIONS] <SUBJECT> --file <FILE>\n       \
                                ... | cofferdam pub [OPTIONS] <SUBJECT> -")]
    Pub(PubArgs),
    /// Prints messages as a running daemon's bus has them.
    #[command(override_usage = "cofferdam sub [OPTIONS] <SUBJECT>...")]
    Sub(SubArgs),
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Prints the effective configuration as TOML, each value with where it comes from.
    Show(ConfigArgs),
}

#[derive(Debug, Subcommand)]
pub enum DurableCommand {
    /// Deletes a durable. The daemon makes it anew, and it then delivers again all that its stream holds.
    Delete {
        /// STREAM/DURABLE, as the message about it shows it.
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration; see docs/configuration.md. Default: cofferdam.toml of the working directory, else the built-in
    /// one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
