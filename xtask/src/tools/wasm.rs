//! The compiler for guests, by a ladder: the current toolchain's wasm target, `rustup target add`, Debian's packages.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::debian;
use crate::repo::Repo;
use crate::steps::Step;
use crate::tool::{self, Tool};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// A way to the wasm target; `setup --wasm` forces one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rung {
    /// Only if the current toolchain has the target already.
    Present,
    /// `rustup target add`.
    Rustup,
    /// Debian's rustc-web, unpacked into target/tools; std is built from source.
    Debian,
}

/// A compiler that builds guests.
#[derive(Debug, Clone)]
pub(crate) struct Wasm {
    pub(crate) rung: Rung,
    /// `rustc 1.95.0 (..)`.
    pub(crate) version: String,
    /// Where the compiler and its sources lie.
    pub(crate) sysroot: PathBuf,
    /// Set where it isn't the `rustc` that cargo takes by itself.
    pub(crate) debian: Option<debian::Rustc>,
    /// Folders with `rust-lld`, for a compiler that brings none.
    linkers: Vec<PathBuf>,
}

impl fmt::Display for Wasm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.rung {
            Rung::Present => "the target is installed",
            Rung::Rustup => "added by rustup",
            Rung::Debian => "Debian packages in target/tools",
        };
        // Without the commit: "rustc 1.95.0".
        let version = self.version.split(" (").next().unwrap_or_default();
        write!(f, "{version}, {way}")
    }
}

/// What cargo needs beside `--target`.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) args: Vec<&'static str>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Wasm {
    #[cfg(test)]
    pub(crate) fn native_for_tests(rung: Rung, sysroot: &str) -> Self {
        Self {
            rung,
            version: "rustc 1.95.0".to_owned(),
            sysroot: sysroot.into(),
            debian: None,
            linkers: Vec::new(),
        }
    }

    pub(crate) fn flags(&self) -> Result<Flags> {
        let Some(debian) = &self.debian else { return Ok(Flags::default()) };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = self.linkers.iter().cloned().chain(std::env::split_paths(&path));
        let environment = vec![
            ("RUSTC", debian.rustc.clone().into_os_string()),
            ("LD_LIBRARY_PATH", debian.library_path()?),
            // build-std is unstable; Debian's compiler is a release.
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("PATH", std::env::join_paths(path).context("a folder on PATH holds a colon")?),
        ];
        Ok(Flags { args: vec!["-Zbuild-std=std,panic_abort"], environment })
    }
}

/// Climbs the ladder. What an earlier call achieved is found again without network.
pub(crate) fn ensure(repo: &Repo, step: &Step, choice: Option<Rung>) -> Result<Wasm> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = tool::ask(&rustc, ["--print", "sysroot"]).map(PathBuf::from).with_context(|| {
        format!("`{} --print sysroot` does not run: install Rust first", rustc.to_string_lossy())
    })?;
    let version = tool::ask(&rustc, ["-V"]).unwrap_or_default();
    let native = |rung| Wasm {
        rung,
        version: version.clone(),
        sysroot: sysroot.clone(),
        debian: None,
        linkers: Vec::new(),
    };

    let mut refused = Vec::new();
    if choice.is_none_or(|rung| rung == Rung::Present) {
        if has_target(&rustc) {
            return Ok(native(Rung::Present));
        }
        refused.push(format!("installed: {version} has no target {TARGET}"));
    }
    let unpacked = debian::unpacked(repo);
    // Where Debian's packages serve already, rustup was out of reach: don't wait for it again.
    if choice == Some(Rung::Rustup) || (choice.is_none() && unpacked.is_none()) {
        match by_rustup(repo, step) {
            Ok(()) if has_target(&rustc) => return Ok(native(Rung::Rustup)),
            Ok(()) => refused
                .push("rustup: it added the target to another toolchain than the current one".to_owned()),
            Err(error) => refused.push(format!("rustup: {}", first_line(&error)?)),
        }
    }
    if choice.is_none_or(|rung| rung == Rung::Debian) {
        let found = match unpacked {
            Some(found) => Ok(found),
            None => debian::fetch(repo, step, &minimum(repo)?),
        };
        match found {
            Ok(debian) => {
                let linkers = linkers(&rustc, &sysroot)?;
                return Ok(Wasm {
                    rung: Rung::Debian,
                    version: debian.version.clone(),
                    sysroot: debian.root.join("usr"),
                    debian: Some(debian),
                    linkers,
                });
            }
            Err(error) if error.downcast_ref::<debian::NoApt>().is_some() => {
                refused.push(format!("Debian packages: {error}"))
            }
            Err(error) => return Err(error),
        }
    }
    bail!(
        "no compiler for {TARGET}:\n  {}\n  remedy: run `rustup target add {TARGET}` where rustup reaches its server",
        refused.join("\n  ")
    )
}

/// Interruption is no rung's refusal: it goes up.
fn first_line(error: &anyhow::Error) -> Result<String> {
    crate::interrupt::check()?;
    if let Some(failed) = error.downcast_ref::<tool::Failed>() {
        let line = failed.tail.iter().rev().find(|line| !line.trim().is_empty());
        return Ok(line.cloned().unwrap_or_else(|| "failed without a word".to_owned()));
    }
    Ok(format!("{error:#}"))
}

fn has_target(rustc: &OsString) -> bool {
    let Some(folder) = tool::ask(rustc, ["--print", "target-libdir", "--target", TARGET]) else {
        return false;
    };
    let Ok(mut entries) = std::fs::read_dir(folder) else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

fn by_rustup(repo: &Repo, step: &Step) -> Result<()> {
    tool::on_path("rustup").ok_or_else(|| anyhow!("not installed"))?;
    step.at("rustup target add");
    let tool = Tool::new("rustup", &repo.log("rustup"), &format!("rustup target add {TARGET}"));
    // Where nothing answers, the next rung is better than a long wait.
    tool.args(["target", "add", TARGET])
        .env("RUSTUP_MAX_RETRIES", "1")
        .limit(Duration::from_secs(180))
        .run(step)
        .map(drop)
}

/// Debian's compiler brings no `rust-lld`; the toolchain that built us does.
fn linkers(rustc: &OsString, sysroot: &Path) -> Result<Vec<PathBuf>> {
    let verbose = tool::ask(rustc, ["-vV"]).unwrap_or_default();
    let host =
        verbose.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    let folder = sysroot.join("lib/rustlib").join(host).join("bin");
    if folder.join("rust-lld").is_file() {
        return Ok(vec![folder.clone(), folder.join("gcc-ld")]);
    }
    match tool::on_path("rust-lld") {
        Some(_) => Ok(Vec::new()),
        None => bail!(
            "no rust-lld in {} nor on PATH: install Rust by rustup, whose toolchains have one",
            folder.display()
        ),
    }
}

/// The workspace's `rust-version`: cargo refuses an older compiler.
fn minimum(repo: &Repo) -> Result<String> {
    let manifest =
        std::fs::read_to_string(repo.root().join("Cargo.toml")).context("can't read Cargo.toml")?;
    let manifest: toml::Table = manifest.parse().context("Cargo.toml is not TOML")?;
    let version = manifest
        .get("workspace")
        .and_then(|table| table.get("package"))
        .and_then(|table| table.get("rust-version"));
    version
        .and_then(toml::Value::as_str)
        .map(str::to_owned)
        .context("Cargo.toml has no workspace.package.rust-version")
}
