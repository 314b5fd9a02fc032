//! `cargo xtask crash`: builds what the soak needs, runs it (tests/soak), and prints its document.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::Crash;
use crate::guests::{self, Selection};
use crate::repo::Repo;
use crate::steps::{Step, Steps};
use crate::tool::Tool;
use crate::{binaries, cargo, terminal, tools};

pub(crate) fn run(repo: &Repo, steps: &Steps, args: &Crash) -> Result<()> {
    let tools = tools::setup(repo, steps, None)?;
    guests::build(repo, steps, &tools.wasm, Selection { names: &[], fixtures: true })?;
    let soak = steps.run("build programs", |step| build(repo, step, "soak"))?;
    let again = format!("cargo xtask crash {}", words(args).join(" "));
    let (document, status) = steps.run("soak", |step| {
        Tool::new(soak, &repo.log("soak"), &again)
            .arg(if args.jobs.is_some() { "jobs" } else { "run" })
            .args(words(args))
            .env("NATS_SERVER", &tools.nats.path)
            .without_fleet_settings()
            .run_to_status(step)
    })?;
    // What was found is told whether it is good or bad.
    if !document.is_empty() {
        terminal::out(&document.join("\n"));
    }
    status
}

/// As the tests build, so that neither makes the other build anew.
pub(crate) fn build(repo: &Repo, step: &Step, program: &str) -> Result<PathBuf> {
    binaries::require_disk(repo)?;
    let build = cargo::command(repo, "build-soak", "cargo build --workspace --all-targets");
    let args = ["build", "--workspace", "--all-targets", "--message-format=json-render-diagnostics"];
    let products = cargo::products(&build.args(args).run(step)?);
    let found = products.into_iter().filter(|product| product.target == program);
    // Its tests are a program of the same name; the program itself is the one that cargo puts beside the daemon.
    let beside = |path: &PathBuf| path.parent().is_some_and(|folder| folder.join("cofferdam").is_file());
    let found = found.filter_map(|product| product.executable).find(beside);
    found.with_context(|| format!("cargo built no program `{program}`"))
}

/// The soak takes the same words.
fn words(args: &Crash) -> Vec<String> {
    let mut words = Vec::new();
    if args.jobs.is_none() {
        words.extend(["--bus".to_owned(), args.bus.clone(), "--events".to_owned(), args.events.to_string()]);
    }
    let numbers = [
        ("--jobs", args.jobs),
        ("--workers", args.workers),
        ("--kills", args.kills),
        ("--seed", args.seed),
        ("--daemons", args.daemons),
    ];
    for (name, value) in numbers {
        words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
    }
    if let Some(nodes) = &args.nodes {
        words.extend(["--nodes".to_owned(), nodes.clone()]);
    }
    for fault in &args.fault {
        words.extend(["--fault".to_owned(), fault.clone()]);
    }
    if let Some(keep) = &args.keep {
        words.extend(["--keep".to_owned(), keep.display().to_string()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_soak_is_told_what_the_person_said() {
        for line in [
            "xtask crash --bus nats --events 500 --kills 7 --seed 3 --nodes 3 --fault daemon --fault cut",
            "xtask crash --jobs 500 --workers 2 --kills 7 --seed 3 --keep soak",
        ] {
            let Command::Crash(args) = Cli::parse_from(line.split(' ')).command else { unreachable!() };
            assert_eq!(words(&args).join(" "), line.trim_start_matches("xtask crash "));
        }
    }
}
