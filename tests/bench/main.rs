//! The benchmarks behind `cargo xtask bench`: each runs the bare thing and ours alternately and prints how they compare, as a
//! table or (`--json`) as one document.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that can't go on fails, and says where"
)]

mod backlog;
mod bare;
mod compare;
mod dispatch;
mod executor;
mod fanout;
mod feed;
mod instructions;
mod latency;
mod local;
mod machine;
mod options;
mod ours;
mod outcome;
mod outputs;
mod pace;
mod report;
mod rig;
mod sandbox;
mod state;
mod track;
mod work;

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

use crate::{options::Options, report::Report, rig::Rig};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(unknown) = options.check() {
        report::say(&unknown);
        return ExitCode::FAILURE;
    }
    if options.traced {
        Box::pin(instructions::traced()).await;
        return ExitCode::SUCCESS;
    }
    if options.endpoint {
        executor::endpoint::serve().await;
        return ExitCode::SUCCESS;
    }
    let rig = Rig::start(options).await;
    let mut results = Vec::new();
    results.extend(Box::pin(dispatch::run(&rig)).await);
    results.extend(Box::pin(fanout::run(&rig)).await);
    results.extend(Box::pin(state::run(&rig)).await);
    results.extend(Box::pin(sandbox::run(&rig)).await);
    results.extend(Box::pin(latency::run(&rig)).await);
    results.extend(Box::pin(executor::run(&rig)).await);
    results.extend(Box::pin(backlog::run(&rig)).await);
    results.extend(Box::pin(instructions::run(&rig)).await);
    let report = Report::of(&rig, results);
    let text = if rig.options.json { report.document() } else { report.table() };
    writeln!(std::io::stdout().lock(), "{text}").expect("standard output");
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
