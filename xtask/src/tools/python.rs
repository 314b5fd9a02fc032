//! Python packages with which the tests play a fleet in Python: a system's own if they import, else from PyPI by pip into
//! `target/tools/python`, never installed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wheel::pip;
use crate::repo::Repo;
use crate::steps::Step;
use crate::tool::{self, Tool};

/// As pip takes them.
const REQUIREMENTS: [&str; 3] = ["grpcio>=1.70", "grpcio-tools>=1.70", "nats-py>=2.9"];
/// Says which are in use.
const PROBE: &str = "import grpc, grpc_tools.protoc, nats, nats.js; print(grpc.__version__)";
const REMEDY: &str = "install the Python packages grpcio, grpcio-tools and nats-py for python3";

#[derive(Debug)]
pub(crate) struct Python {
    grpc: String,
    found: &'static str,
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpcio {}, {}", self.grpc, self.found)
    }
}

pub(crate) fn ensure(repo: &Repo, step: &Step) -> Result<Python> {
    let own = repo.tools().join("python");
    if let Some(grpc) = tool::ask("python3", ["-c", PROBE]) {
        return Ok(Python { grpc, found: "on this machine" });
    }
    if let Some(grpc) = of(&own) {
        return Ok(Python { grpc, found: "target/tools" });
    }
    let Some(pip) = pip() else {
        bail!("no pip on PATH: install it (Debian: `apt-get install python3-pip`), or {REMEDY}")
    };
    if own.exists() {
        // What was cut off.
        std::fs::remove_dir_all(&own).with_context(|| format!("can't remove {}", own.display()))?;
    }
    step.at("pip install grpcio-tools nats-py");
    Tool::new(pip[0], &repo.log("python"), "cargo xtask setup")
        .args(&pip[1..])
        .args(["install", "--only-binary", ":all:", "--progress-bar", "off", "--no-warn-script-location"])
        .arg("--target")
        .arg(&own)
        .args(REQUIREMENTS)
        .limit(Duration::from_secs(900))
        .run(step)
        .with_context(|| format!("pip can't bring them; or {REMEDY}"))?;
    match of(&own) {
        Some(grpc) => Ok(Python { grpc, found: "target/tools, from PyPI" }),
        None => bail!("the Python packages that pip brought do not import here: {REMEDY}"),
    }
}

/// The version of what a folder holds.
fn of(folder: &Path) -> Option<String> {
    if !folder.is_dir() {
        return None;
    }
    let probe = format!("import sys; sys.path.insert(0, sys.argv[1]); {PROBE}");
    tool::ask("python3", ["-c".as_ref(), probe.as_ref(), folder.as_os_str()])
}
