//! Debian's Rust compiler without root: its packages are downloaded with lists and cache of our own, checked, and
//! unpacked into `target/tools`. Names are resolved, never pinned.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::version;
use crate::disk::{self, MIB};
use crate::repo::Repo;
use crate::stamps;
use crate::steps::Step;
use crate::tool::{self, Tool};

/// The compiler, its std for the host (build scripts and macros), and std's sources.
const SEEDS: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
/// 137 MB of packages, 650 MB unpacked, and the lists.
const DISK: u64 = 1024 * MIB;
const AGAIN: &str = "cargo xtask setup";

/// This system has no apt, or apt knows no fitting compiler: another rung must do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoApt(String);

/// An unpacked compiler.
#[derive(Debug, Clone)]
pub(crate) struct Rustc {
    pub(crate) root: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) version: String,
    libraries: Vec<PathBuf>,
}

impl Rustc {
    pub(crate) fn library_path(&self) -> Result<OsString> {
        std::env::join_paths(&self.libraries)
            .context("the path of the checkout holds a colon; LD_LIBRARY_PATH can't")
    }

    /// Looks at an unpacked folder; `None` unless its compiler runs.
    fn at(root: &Path) -> Option<Self> {
        let rustc = root.join("usr/bin/rustc");
        let library = root.join("usr/lib");
        let mut libraries = vec![library.clone()];
        for entry in std::fs::read_dir(&library).ok()? {
            let path = entry.ok()?.path();
            if path.is_dir()
                && path.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu"))
            {
                libraries.push(path);
            }
        }
        libraries.sort();
        let mut found = Self { root: root.to_path_buf(), rustc, version: String::new(), libraries };
        let output = std::process::Command::new(&found.rustc)
            .arg("-V")
            .env("LD_LIBRARY_PATH", found.library_path().ok()?)
            .output()
            .ok()?;
        if !output.status.success() {
            return None;
        }
        String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut found.version);
        Some(found)
    }
}

/// One package as apt would download it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    file: String,
    size: u64,
    sha256: String,
}

/// Where an earlier set-up left the compiler.
fn root(repo: &Repo) -> PathBuf {
    repo.tools().join("rust-web")
}

/// The compiler of an earlier set-up, if it is whole.
pub(crate) fn unpacked(repo: &Repo) -> Option<Rustc> {
    Rustc::at(&root(repo))
}

/// Downloads and unpacks. What a killed call had downloaded is used again.
pub(crate) fn fetch(repo: &Repo, step: &Step, minimum: &str) -> Result<Rustc> {
    for program in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
        if tool::on_path(program).is_none() {
            return Err(NoApt(format!("this system has no {program}")).into());
        }
    }
    disk::require(&repo.target(), DISK, "Debian's Rust compiler")?;
    let apt = Apt::new(repo)?;
    step.at("updating package lists");
    // One unreachable source among several fails it; whether the packages are known decides.
    let updated = apt.run("apt-get", &["update"], step, None);
    crate::interrupt::check()?;
    let names = match apt.resolve(step, minimum) {
        Ok(names) => names,
        Err(error) => return Err(updated.err().unwrap_or(error)),
    };
    let packages = apt.packages(&names, step)?;
    apt.download(&names, &packages, step)?;
    step.spin();
    let fresh = repo.tools().join("rust-web.new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).with_context(|| format!("can't remove {}", fresh.display()))?;
    }
    for package in &packages {
        step.at(&format!("unpacking {}", package.file));
        let unpack =
            Tool::new("dpkg", &apt.log, AGAIN).arg("-x").arg(apt.debs.join(&package.file)).arg(&fresh);
        unpack.run(step)?;
    }
    let Some(_) = Rustc::at(&fresh) else {
        bail!(
            "Debian's rustc does not run: `LD_LIBRARY_PATH={0}/usr/lib/x86_64-linux-gnu {0}/usr/bin/rustc -V` says why",
            fresh.display()
        )
    };
    let root = root(repo);
    if root.exists() {
        std::fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))?;
    }
    std::fs::rename(&fresh, &root)
        .with_context(|| format!("can't move {} to {}", fresh.display(), root.display()))?;
    // Unpacked they are of no more use; a later set-up would want newer ones.
    drop(std::fs::remove_dir_all(&apt.debs));
    Rustc::at(&root).context("the unpacked compiler vanished")
}

/// apt with lists and cache of our own: no root, and the system's stay as they are.
struct Apt {
    options: Vec<String>,
    debs: PathBuf,
    log: PathBuf,
}

impl Apt {
    fn new(repo: &Repo) -> Result<Self> {
        let own = repo.tools().join("apt");
        let debs = own.join("debs");
        let (lists, cache) = (own.join("lists"), own.join("cache"));
        for folder in [lists.join("partial"), cache.join("archives/partial"), debs.clone()] {
            std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        let options = vec![
            "-o".to_owned(),
            format!("Dir::State::Lists={}", lists.display()),
            "-o".to_owned(),
            format!("Dir::Cache={}", cache.display()),
        ];
        Ok(Self { options, debs, log: repo.log("debian-packages") })
    }

    fn tool(&self, program: &str) -> Tool {
        Tool::new(program, &self.log, AGAIN).folder(&self.debs).env("LC_ALL", "C").args(&self.options)
    }

    fn run(&self, program: &str, args: &[&str], step: &Step, limit: Option<Duration>) -> Result<Vec<String>> {
        self.tool(program).args(args).limit(limit.unwrap_or(Duration::from_secs(600))).run(step)
    }

    /// The seeds and the libraries that the compiler loads and the system lacks.
    fn resolve(&self, step: &Step, minimum: &str) -> Result<Vec<String>> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", SEEDS[0]], step, None);
        let found = shown.ok().and_then(|lines| {
            lines.iter().find_map(|line| line.strip_prefix("Version: ").map(str::to_owned))
        });
        let Some(found) = found else {
            return Err(NoApt(format!("apt knows no package {}", SEEDS[0])).into());
        };
        if version(&found) < version(minimum) {
            return Err(NoApt(format!("apt's {} is {found}, Rust {minimum} is needed", SEEDS[0])).into());
        }
        let installed =
            tool::ask("dpkg-query", ["-W", "-f", "${db:Status-Abbrev}${Package}\n"]).unwrap_or_default();
        let installed =
            installed.lines().filter_map(|line| line.strip_prefix("ii ")).collect::<BTreeSet<_>>();
        let mut names = SEEDS.map(str::to_owned).to_vec();
        let mut queue = names.iter().cloned().collect::<VecDeque<_>>();
        while let Some(name) = queue.pop_front() {
            let lines = self.run("apt-cache", &["depends", "--important", &name], step, None)?;
            for dependency in depends(&lines) {
                // Of the compiler itself only its libraries count: gcc and the like are the system's business.
                let wanted = if SEEDS.contains(&name.as_str()) {
                    is_own(dependency)
                } else {
                    !installed.contains(dependency)
                };
                if wanted && !names.iter().any(|name| name == dependency) {
                    names.push(dependency.to_owned());
                    queue.push_back(dependency.to_owned());
                }
            }
        }
        Ok(names)
    }

    fn packages(&self, names: &[String], step: &Step) -> Result<Vec<Package>> {
        let mut args = vec!["download", "--print-uris"];
        args.extend(names.iter().map(String::as_str));
        let lines = self.run("apt-get", &args, step, None)?;
        let packages = lines.iter().filter_map(|line| package(line)).collect::<Vec<_>>();
        if packages.len() != names.len() {
            bail!(
                "apt names {} files for the packages {}; see {}",
                packages.len(),
                names.join(" "),
                self.log.display()
            );
        }
        Ok(packages)
    }

    fn download(&self, names: &[String], packages: &[Package], step: &Step) -> Result<()> {
        let all = packages.iter().map(|package| package.size).sum::<u64>();
        let mut missing = false;
        for package in packages {
            let file = self.debs.join(&package.file);
            missing |= !(file.is_file() && stamps::sha256_of_file(&file)? == package.sha256);
        }
        if missing {
            let debs = self.debs.clone();
            let download = self.tool("apt-get").arg("download").args(names);
            let progress =
                move |step: &Step| step.bytes(size(&debs).min(all), all, "downloading Debian packages");
            download.progress(progress).run(step)?;
        }
        for package in packages {
            let file = self.debs.join(&package.file);
            if stamps::sha256_of_file(&file)? != package.sha256 {
                drop(std::fs::remove_file(&file));
                bail!("{} was not downloaded whole; run `{AGAIN}` again", package.file);
            }
        }
        Ok(())
    }
}

fn is_own(name: &str) -> bool {
    name.starts_with("libstd-rust")
}

fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|data| data.len()).sum()
}

/// The real packages that `apt-cache depends` names, the first of alternatives.
fn depends(lines: &[String]) -> Vec<&str> {
    let mut names = Vec::new();
    let mut chosen = false;
    for line in lines {
        let text = line.trim_start();
        let (text, alternative) = text.strip_prefix('|').map_or((text, false), |text| (text, true));
        let name = text.strip_prefix("Depends: ").or_else(|| text.strip_prefix("PreDepends: "));
        let Some(name) = name else { continue };
        if !chosen && !name.starts_with('<') {
            names.push(name);
            chosen = true;
        }
        if !alternative {
            chosen = false;
        }
    }
    names
}

/// `'http://..' file.deb 123 SHA256:abc`
fn package(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
    Some(Package {
        file: words.next()?.to_owned(),
        size: words.next()?.parse().ok()?,
        sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_real_packages_and_the_first_of_alternatives() {
        let text = "rustc-web\n  Depends: libc6\n |Depends: a\n  Depends: b\n  Depends: <libc-dev>\n    libc6-dev\n |Depends: <c>\n  Depends: d\n  Conflicts: rustc\n  PreDepends: e\n";
        let lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(depends(&lines), ["libc6", "a", "d", "e"]);
    }

    #[test]
    fn a_package_is_read_from_the_uri_line() {
        let found = package(
            "'http://h/pool/libllvm22_22%7edeb12u1_amd64.deb' libllvm22_1%3a22.deb 29378692 SHA256:72af",
        )
        .unwrap();
        assert_eq!(
            found,
            Package { file: "libllvm22_1%3a22.deb".into(), size: 29_378_692, sha256: "72af".into() }
        );
        assert_eq!(package("W: something"), None);
    }
}
