//! `cargo xtask ci`: format, licences, lints, `test`, then the count of instructions. What CI runs is what a person runs.

use anyhow::Result;

use crate::repo::Repo;
use crate::steps::{Step, Steps};
use crate::tool::Tool;
use crate::{bench, cargo, test, tools};

pub(crate) fn run(repo: &Repo, steps: &Steps) -> Result<()> {
    let ran = checks(repo, steps).and_then(|()| test::all(repo, steps, &[], false));
    if ran.is_ok() {
        bench::instructions(repo, steps);
    }
    test::report(steps, ran)
}

/// The quick ones first.
fn checks(repo: &Repo, steps: &Steps) -> Result<()> {
    steps.run("format", |step| {
        // The names of the files are enough: the remedy is the same for all.
        check(repo, step, "format", "cargo fmt --all", &["fmt", "--all", "--check", "--", "-l"])
    })?;
    steps.run("licences and sources", |step| {
        let deny = tools::deny::ensure(repo, step)?;
        // Advisories are left out: their database is on no registry.
        Tool::new(deny, &repo.log("deny"), "cargo xtask ci")
            .folder(repo.root())
            .args(["--workspace", "--all-features", "check", "bans", "licenses", "sources"])
            .run(step)
            .map(drop)
    })?;
    steps.run("lints", |step| {
        let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        check(repo, step, "lints", "cargo clippy --workspace --all-targets -- -D warnings", &args)
    })
}

fn check(repo: &Repo, step: &Step, log: &str, again: &str, args: &[&str]) -> Result<()> {
    cargo::command(repo, log, again).args(args).run(step).map(drop)
}
