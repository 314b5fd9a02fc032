//! The programs that the project needs and an ordinary machine may lack: one file each, found or fetched without root
//! into `target/tools`.

pub(crate) mod debian;
pub(crate) mod deny;
pub(crate) mod llm;
pub(crate) mod nats;
pub(crate) mod python;
pub(crate) mod wasm;
pub(crate) mod wheel;

use anyhow::Result;

use crate::disk::{self, MIB};
use crate::lock::Lock;
use crate::repo::Repo;
use crate::steps::Steps;

/// Debian's packages (115 MB, 600 MB unpacked), nats-server, and the guests built with them.
const DISK: u64 = 2048 * MIB;

/// What `setup` provides.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) wasm: wasm::Wasm,
    pub(crate) nats: nats::Nats,
}

pub(crate) fn setup(repo: &Repo, steps: &Steps, choice: Option<wasm::Rung>) -> Result<Tools> {
    let wasm = wasm(repo, steps, choice)?;
    let nats = nats(repo, steps)?;
    Ok(Tools { wasm, nats })
}

pub(crate) fn wasm(repo: &Repo, steps: &Steps, choice: Option<wasm::Rung>) -> Result<wasm::Wasm> {
    steps.run("wasm toolchain", |step| {
        let _lock = Lock::take(&repo.notes().join("tools.lock"), step)?;
        if !repo.tools().is_dir() {
            disk::require(&repo.target(), DISK, "setting up")?;
        }
        let wasm = wasm::ensure(repo, step, choice)?;
        step.note(wasm.to_string());
        Ok(wasm)
    })
}

pub(crate) fn nats(repo: &Repo, steps: &Steps) -> Result<nats::Nats> {
    steps.run("nats-server", |step| {
        let _lock = Lock::take(&repo.notes().join("tools.lock"), step)?;
        let nats = nats::ensure(repo, step)?;
        step.note(nats.to_string());
        Ok(nats)
    })
}

pub(crate) fn python(repo: &Repo, steps: &Steps) -> Result<()> {
    steps.run("Python packages", |step| {
        let _lock = Lock::take(&repo.notes().join("tools.lock"), step)?;
        step.note(python::ensure(repo, step)?.to_string());
        Ok(())
    })
}

/// For the optional tests alone.
pub(crate) fn llm(repo: &Repo, steps: &Steps) -> Result<llm::Llm> {
    steps.run("model and its server", |step| {
        let _lock = Lock::take(&repo.notes().join("tools.lock"), step)?;
        let llm = llm::ensure(repo, step)?;
        step.note(llm.to_string());
        Ok(llm)
    })
}

/// A version as programs print it: the first dotted number in the text.
pub(crate) fn version(text: &str) -> Option<(u64, u64, u64)> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut parts = word.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().and_then(|patch| patch.parse().ok()).unwrap_or(0);
        Some((major, minor, patch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        for (text, expect) in [
            ("nats-server: v2.15.1", Some((2, 15, 1))),
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some((1, 95, 0))),
            ("1.96.0+dfsg1-1~deb12u2", Some((1, 96, 0))),
            ("cargo-deny 0.20", Some((0, 20, 0))),
            ("1.95", Some((1, 95, 0))),
            ("nothing 7 here.", None),
        ] {
            assert_eq!(version(text), expect, "{text}");
        }
    }
}
