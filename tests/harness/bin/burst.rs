//! The burst behind `cargo xtask burst`: prints what came of it as one JSON document, and fails if an event was lost or
//! repeated. What memory it took is for a person to judge.
#![allow(clippy::expect_used, reason = "a measurement that can't go on fails, and says where")]

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, ValueEnum};
use harness::burst::Burst;

#[derive(Parser)]
#[command(name = "burst")]
struct Options {
    #[arg(long, value_enum, default_value = "local")]
    bus: Bus,
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Of each event's payload.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Events a second of the trickle before the burst; the daemon's memory then is the measure.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    trickle: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bus {
    Nats,
    Local,
}

/// How long the trickle lasts, in seconds: longer than the duplicate window, whose ids the embedded bus has in memory.
const STEADY: u64 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let Options { bus, events, bytes, trickle } = Options::parse();
    let (nats, trickle) = (bus == Bus::Nats, (trickle, STEADY));
    let burst = Burst { nats, events, bytes, warm_up: 20_000, trickle, waiting: false };
    let report = Box::pin(burst.run()).await;
    let text = serde_json::to_string_pretty(&report).expect("JSON");
    writeln!(std::io::stdout().lock(), "{text}").expect("standard output");
    if report.lost + report.repeated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
