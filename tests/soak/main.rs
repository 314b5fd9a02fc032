//! The soak behind `cargo xtask crash`: a workload under faults, then a look at what came of it. `soak run` prints one
//! JSON document; `soak ledger` is the process that the workload's guest calls. `soak jobs` does the same with the executor's
//! workers, and `soak endpoint` is the process that they ask.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a soak that can't go on fails, and says where"
)]

mod collect;
mod faults;
mod feed;
mod jobs;
mod journal;
mod ledger;
mod line;
mod mark;
mod options;
mod place;
mod plain;
mod ports;
mod process;
mod report;
mod schedule;
mod soak;
mod tap;
mod torn;
mod verdict;
mod windows;

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

use crate::options::{Cli, Mode};

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().mode {
        Mode::Ledger { listen, journal } => {
            ledger::serve(&listen, &journal).await;
            ExitCode::SUCCESS
        }
        Mode::Run(options) => {
            let report = Box::pin(soak::run(options)).await;
            let text = serde_json::to_string_pretty(&report).expect("JSON");
            writeln!(std::io::stdout().lock(), "{text}").expect("standard output");
            if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Mode::Endpoint { journal } => {
            jobs::endpoint::serve(&journal).await;
            ExitCode::SUCCESS
        }
        Mode::Jobs(options) => {
            let report = Box::pin(jobs::run(options)).await;
            let text = serde_json::to_string_pretty(&report).expect("JSON");
            writeln!(std::io::stdout().lock(), "{text}").expect("standard output");
            if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
