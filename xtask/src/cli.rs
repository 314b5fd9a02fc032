//! The command line. What the commands do lives in modules of their names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::tools::wasm::Rung;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets up, builds, demonstrates and tests Cofferdam.",
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Provides the wasm toolchain and nats-server, without root, below target/.
    Setup {
        /// Climb only to this rung of the ladder.
        #[arg(long, value_enum)]
        wasm: Option<Rung>,
    },
    /// Builds the bundled plugins into target/plugins; prints name, size and sha256.
    Plugins {
        /// Only these.
        names: Vec<String>,
        /// The guests that tests use, too.
        #[arg(long)]
        fixtures: bool,
        #[arg(long, value_enum, help = "Climb only to this rung of the toolchain ladder")]
        wasm: Option<Rung>,
    },
    /// Draws docs/state-machines.md from the tables of the plugins.
    Docs,
    /// Runs the fleet and the daemon, and follows a plan until its tasks are assigned; with `--full` until they are done.
    Demo(Demo),
    /// Sets up, builds everything and runs all tests.
    Test {
        /// Only tests whose name contains one of these.
        filter: Vec<String>,
        /// Those against a real model's server, too: llama.cpp with a tiny model, or the server at `COFFERDAM_LLM_URL`.
        #[arg(long)]
        with_llm: bool,
    },
    /// Runs a workload under kills and other faults, and prints what was lost, repeated or out of order, as one JSON document.
    Crash(Crash),
    /// Sends a burst of events through one daemon, and prints what it lost and what memory it took.
    Burst(Burst),
    /// Measures the bare thing and ours in turn, and prints how they compare. Builds a release first.
    Bench(Bench),
    /// Runs a benchmark under `perf`, and prints in which functions the daemon spent its time.
    Profile(Profile),
    /// All checks: format, lints, licences, then `test`.
    Ci,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// On a nats-server of its own instead of the daemon's embedded bus.
    #[arg(long)]
    pub(crate) nats: bool,
    /// All the way: councils, the queue, agents that work, review and reject, until the story is in TESTING.
    #[arg(long)]
    pub(crate) full: bool,
    /// With `--full`: kill the daemon so often on the way, and on NATS the worker of its jobs as well.
    #[arg(long, value_name = "N", requires = "full", value_parser = clap::value_parser!(u64).range(..=100))]
    pub(crate) kill: Option<u64>,
    /// Repeats when `--kill` kills; each run names the seed that it had.
    #[arg(long, value_name = "S", requires = "full")]
    pub(crate) seed: Option<u64>,
    /// One JSON document on stdout instead of the tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Your own plan (TOML or JSON): title, description, acceptance_criteria, technical_notes, roles.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Leave everything running at the end.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Give up if the plan is not through by then, in seconds (without the builds). Default: 120, and 30 more for each kill.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: Option<u64>,
    /// Stop what `--keep` left running in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["nats", "full", "json", "plan", "keep"])]
    pub(crate) stop: Option<PathBuf>,
}

impl Demo {
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or_else(|| 120 + 30 * self.kill.unwrap_or_default()))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Crash {
    #[arg(long, default_value = "local", value_parser = ["nats", "local"])]
    pub(crate) bus: String,
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Processes that are killed; other faults come on top of them. With `--jobs`: kills of each worker. Default: 20, or 10.
    #[arg(long, value_name = "N")]
    pub(crate) kills: Option<u64>,
    /// Repeats a schedule; the document names the seed that it had.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Only this kind of fault; may be repeated. Default: all that the bus knows.
    #[arg(long, value_name = "KIND", value_parser = ["daemon", "torn", "pause", "server", "cut", "delay", "upstream"])]
    pub(crate) fault: Vec<String>,
    /// Nodes of the NATS cluster that it runs on.
    #[arg(long, value_name = "N", value_parser = ["1", "3", "5"])]
    pub(crate) nodes: Option<String>,
    /// Hosts that share the durables. Default: 2 on NATS; the embedded bus has one.
    #[arg(long, value_name = "N")]
    pub(crate) daemons: Option<u64>,
    /// Instead of events: so many jobs, worked by `cofferdam executor` processes on NATS that are killed while they hold leases.
    #[arg(long, value_name = "N", conflicts_with_all = ["bus", "events", "fault", "nodes", "daemons"])]
    pub(crate) jobs: Option<u64>,
    /// Processes that work the jobs. Default: 3.
    #[arg(long, value_name = "N", requires = "jobs")]
    pub(crate) workers: Option<u64>,
    /// Leave logs and data there.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Burst {
    #[arg(long, default_value = "local", value_parser = ["nats", "local"])]
    pub(crate) bus: String,
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Of each event's payload.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) bytes: u64,
    /// The whole document instead of a summary.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Bench {
    /// Only results whose names begin with one of these, as `dispatch` or `dispatch/event`. Default: all.
    pub(crate) names: Vec<String>,
    /// One JSON document instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Of one round; where an event costs more, a part of it.
    #[arg(long, value_name = "N")]
    pub(crate) events: Option<u64>,
    /// Of each side, after one that warms up.
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u64>,
    /// Bytes of an event.
    #[arg(long, value_name = "N")]
    pub(crate) payload: Option<u64>,
    /// Events taken and not yet acked.
    #[arg(long, value_name = "N")]
    pub(crate) in_flight: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Profile {
    /// A benchmark as `bench` names it; the sandbox's run without a daemon.
    #[arg(default_value = "dispatch/event")]
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
