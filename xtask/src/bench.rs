//! `cargo xtask bench`: builds what is measured as a release, runs the benchmarks (tests/bench), and prints what they found.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::Bench;
use crate::disk::{self, MIB};
use crate::guests::{self, Selection};
use crate::repo::Repo;
use crate::steps::{Step, Steps};
use crate::tool::Tool;
use crate::{cargo, terminal, tools};

/// A release of the daemon, the benchmarks and what they are made of, wasmtime included.
const DISK: u64 = 3072 * MIB;

pub(crate) fn run(repo: &Repo, steps: &Steps, args: &Bench) -> Result<()> {
    let tools = tools::setup(repo, steps, None)?;
    guests::build(repo, steps, &tools.wasm, Selection { names: &[], fixtures: true })?;
    let bench = steps.run("release build", |step| build(repo, step))?;
    let words = words(args);
    let again = format!("cargo xtask bench {}", words.join(" "));
    let (found, status) = steps.run("benchmarks", |step| {
        Tool::new(bench, &repo.log("bench"), again.trim_end())
            .args(words)
            .env("NATS_SERVER", &tools.nats.path)
            .without_fleet_settings()
            .run_to_status(step)
    })?;
    // What was found is told even if some of it is void.
    if !found.is_empty() {
        terminal::out(&found.join("\n"));
    }
    status
}

/// What an event takes beside what it took when that was last recorded. For a person to judge: it fails nothing.
pub(crate) fn instructions(repo: &Repo, steps: &Steps) {
    let args = Bench { names: vec!["instructions".to_owned()], ..Bench::default() };
    if let Err(error) = run(repo, steps, &args) {
        terminal::err(&format!("instructions were not counted: {error:#}"));
    }
}

/// The daemon comes to lie beside the benchmarks, which start it.
pub(crate) fn build(repo: &Repo, step: &Step) -> Result<PathBuf> {
    let built = repo.target().join("release/bench").is_file();
    disk::require(&repo.target(), if built { 512 * MIB } else { DISK }, "building a release")?;
    let again = "cargo build --release -p cofferdam -p cofferdam-tests --bin cofferdam --bin bench";
    let build = cargo::command(repo, "build-bench", again);
    let args = again.split(' ').skip(1).chain(["--message-format=json-render-diagnostics"]);
    let products = cargo::products(&build.args(args).run(step)?);
    let bench = products.into_iter().find(|product| product.target == "bench");
    bench.and_then(|product| product.executable).context("cargo built no program `bench`")
}

/// The benchmarks take the same words.
fn words(args: &Bench) -> Vec<String> {
    let mut words = args.names.clone();
    words.extend(args.json.then(|| "--json".to_owned()));
    let numbers = [
        ("--events", args.events),
        ("--rounds", args.rounds),
        ("--payload", args.payload),
        ("--in-flight", args.in_flight),
    ];
    for (name, value) in numbers {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_benchmarks_are_told_what_the_person_said() {
        let line =
            "xtask bench dispatch/event fanout --json --events 2000 --rounds 3 --payload 200 --in-flight 64";
        let Command::Bench(args) = Cli::parse_from(line.split(' ')).command else { unreachable!() };
        assert_eq!(words(&args).join(" "), line.trim_start_matches("xtask bench "));
    }
}
