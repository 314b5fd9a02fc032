//! `cargo xtask ci`: format, lints, licences, then `test`. What CI runs is what a person runs.

use anyhow::Result;

use crate::repo::Repo;
use crate::steps::{Step, Steps};
use crate::tool::Tool;
use crate::{cargo, test, tools};

pub(crate) fn run(repo: &Repo, steps: &Steps) -> Result<()> {
    steps
        .run("format", |step| check(repo, step, "format", "cargo fmt --all", &["fmt", "--all", "--check"]))?;
    steps.run("lints", |step| {
        let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        check(repo, step, "lints", "cargo clippy --workspace --all-targets -- -D warnings", &args)
    })?;
    steps.run("licences and sources", |step| {
        let deny = tools::deny::ensure(repo, step)?;
        // Advisories need a database that no registry serves.
        let again = "cargo xtask ci";
        let check = Tool::new(deny, &repo.log("deny"), again).folder(repo.root());
        check
            .args(["--workspace", "--all-features", "check", "bans", "licenses", "sources"])
            .run(step)
            .map(drop)
    })?;
    test::run(repo, steps, &[])
}

fn check(repo: &Repo, step: &Step, log: &str, again: &str, args: &[&str]) -> Result<()> {
    cargo::command(repo, log, again).args(args).run(step).map(drop)
}
