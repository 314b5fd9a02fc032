//! Builds the programs that run on this machine, for development: the daemon and the fleet.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo;
use crate::disk::{self, MIB};
use crate::repo::Repo;
use crate::steps::Steps;

/// A development build of the daemon, wasmtime included.
const DISK: u64 = 4096 * MIB;

#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) cofferdam: PathBuf,
    pub(crate) fleet: PathBuf,
}

pub(crate) fn demo(repo: &Repo, steps: &Steps) -> Result<Demo> {
    steps.run("daemon and fleet", |step| {
        require_disk(repo)?;
        let build = cargo::command(repo, "build", "cargo build -p cofferdam -p fleet").args([
            "build",
            "--bins",
            "--message-format=json-render-diagnostics",
            "-p",
            "cofferdam",
            "-p",
            "fleet",
        ]);
        let products = cargo::products(&build.run(step)?);
        let find = |name: &str| {
            let product =
                products.iter().find(|product| product.target == name && product.executable.is_some());
            let executable = product.and_then(|product| product.executable.clone());
            executable.with_context(|| format!("cargo built no program `{name}`"))
        };
        Ok(Demo { cofferdam: find("cofferdam")?, fleet: find("fleet")? })
    })
}

/// A tree that was built before needs little more.
pub(crate) fn require_disk(repo: &Repo) -> Result<()> {
    let built = repo.target().join("debug/cofferdam").is_file();
    disk::require(&repo.target(), if built { 512 * MIB } else { DISK }, "building the daemon and the fleet")
}
