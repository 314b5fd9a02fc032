//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Runs events of a fleet through sandboxed WASM plugins.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the daemon until SIGTERM or Ctrl-C, then drains.
    Run {
        /// The configuration; see docs/configuration.md.
        #[arg(long, default_value = "cofferdam.toml")]
        config: PathBuf,
    },
}
