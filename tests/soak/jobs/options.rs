//! The command line of this soak.

use std::path::PathBuf;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) jobs: u64,
    #[arg(long, default_value_t = 3, value_parser = workers)]
    pub(crate) workers: usize,
    /// Of each worker, while it holds leases.
    #[arg(long, default_value_t = 10)]
    pub(crate) kills: u64,
    /// Another each time unless it is given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where logs and the endpoint's journal are left; default: a temporary folder, gone at the end.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=8) => Ok(workers),
        _ => Err("1 to 8 workers".to_owned()),
    }
}
