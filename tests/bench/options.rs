//! The command line.

use clap::Parser;
use serde::Serialize;

/// Every result there is.
const RESULTS: [&str; 30] = [
    "dispatch/batch",
    "dispatch/event",
    "dispatch/record",
    "dispatch/local",
    "fanout/record",
    "state/cell",
    "sandbox/fresh-overhead",
    "sandbox/fresh-overhead-2t",
    "sandbox/fresh-1mb",
    "sandbox/fresh-1mb-2t",
    "sandbox/warm",
    "sandbox/batch",
    "sandbox/compile",
    "sandbox/load",
    "latency/p50-tenth",
    "latency/p99-tenth",
    "latency/p999-tenth",
    "latency/p50-half",
    "latency/p99-half",
    "latency/p999-half",
    "latency/p50-most",
    "latency/p99-most",
    "latency/p999-most",
    "executor/throughput-64",
    "executor/throughput-1000",
    "executor/added-ms-1",
    "backlog/peak-memory",
    "instructions/event",
    "instructions/batch",
    "instructions/bare",
];

#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// Only results whose names begin with one of these. Default: all.
    #[serde(skip)]
    pub(crate) names: Vec<String>,
    /// One JSON document instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
    /// Of one round of `dispatch` and `state`; where an event costs more, a part of it.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    pub(crate) events: u64,
    /// Of each side, after one that warms up.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// Bytes of an event.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u64).range(100..=900_000))]
    pub(crate) payload: u64,
    /// Events taken and not yet acked.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=4000))]
    pub(crate) in_flight: u64,
    /// This is the HTTP server that both sides of `executor` ask.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) endpoint: bool,
    /// This is the copy whose instructions are counted.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub(crate) traced: bool,
}

impl Options {
    /// Is a result of this name asked for?
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let known = |name: &&String| RESULTS.iter().any(|known| known.starts_with(name.as_str()));
        match self.names.iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = RESULTS.to_vec();
                Err(format!("there is no benchmark {name:?}; there are {}", known.join(", ")))
            }
        }
    }
}
