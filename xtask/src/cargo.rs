//! The same cargo that started us: what the workspace holds, and builds whose products are named by cargo itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::repo::Repo;
use crate::tool::{self, Tool};

/// A package of the workspace, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) crate_types: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Dependency {
    path: Option<PathBuf>,
}

impl Package {
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the checkout.
pub(crate) fn command(repo: &Repo, log: &str, again: &str) -> Tool {
    let colour = if crate::terminal::is_watched() { "auto" } else { "never" };
    let cargo = Tool::new(program(), &repo.log(log), again).folder(repo.root());
    // What cargo tells xtask about xtask: build scripts that watch these (that of `ring`) would run again, and all that is
    // built on them, whenever a person's own cargo and ours take turns.
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = ours.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
    ours.fold(cargo, |cargo, name| cargo.without(&name)).env("CARGO_TERM_COLOR", colour)
}

/// The packages of the workspace.
pub(crate) fn packages(repo: &Repo) -> Result<Vec<Package>> {
    let manifest = repo.root().join("Cargo.toml");
    let args = ["metadata", "--no-deps", "--format-version=1", "--manifest-path"].map(OsString::from);
    let text = tool::ask(program(), args.into_iter().chain([manifest.into_os_string()]));
    let text = text.context("`cargo metadata --no-deps` fails; run it to see why")?;
    Ok(serde_json::from_str::<Metadata>(&text).context("can't read what `cargo metadata` prints")?.packages)
}

/// The folders that a package is made of: its own and those of the path dependencies.
pub(crate) fn folders(packages: &[Package], package: &Package) -> Vec<PathBuf> {
    let mut folders = vec![package.folder().to_path_buf()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let Some(package) = packages.iter().find(|package| package.folder() == folder) else { continue };
        for path in package.dependencies.iter().filter_map(|dependency| dependency.path.clone()) {
            if !folders.contains(&path) {
                folders.push(path);
            }
        }
    }
    folders
}

/// A product as cargo names it in `--message-format=json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) package: PathBuf,
    pub(crate) target: String,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) executable: Option<PathBuf>,
}

pub(crate) fn products(lines: &[String]) -> Vec<Product> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        manifest_path: Option<PathBuf>,
        target: Option<Named>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let messages = lines.iter().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let artifacts = messages.filter(|message| message.reason == "compiler-artifact");
    let product = |message: Message| {
        Some(Product {
            package: message.manifest_path?.parent()?.to_path_buf(),
            target: message.target?.name,
            files: message.filenames,
            executable: message.executable,
        })
    };
    artifacts.filter_map(product).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_read_from_the_messages() {
        let lines = [
            r#"{"reason":"compiler-artifact","package_id":"x","manifest_path":"/r/a/Cargo.toml","target":{"kind":["bin"],"name":"a","src_path":"s"},"filenames":["/t/a"],"executable":"/t/a","fresh":true}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "no json",
        ]
        .map(str::to_owned);
        let expect = Product {
            package: "/r/a".into(),
            target: "a".into(),
            files: vec!["/t/a".into()],
            executable: Some("/t/a".into()),
        };
        assert_eq!(products(&lines), [expect]);
    }

    #[test]
    fn the_folders_of_a_package_follow_path_dependencies() {
        let package = |name: &str, paths: &[&str]| Package {
            name: name.to_owned(),
            manifest_path: format!("/r/{name}/Cargo.toml").into(),
            targets: Vec::new(),
            dependencies: paths
                .iter()
                .map(|path| Dependency { path: Some(format!("/r/{path}").into()) })
                .collect(),
        };
        let packages = [package("a", &["b"]), package("b", &["c"]), package("c", &[]), package("d", &["a"])];
        assert_eq!(folders(&packages, &packages[0]), ["/r/a", "/r/b", "/r/c"].map(PathBuf::from));
    }
}
