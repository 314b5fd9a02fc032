//! Where things are: the checkout and what xtask keeps below its `target` folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checkout that xtask was started from.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// cargo names our folder; without cargo the working directory's ancestors are searched.
    pub(crate) fn find() -> Result<Self> {
        if let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
            && let Some(root) = folder.parent()
            && is_root(root)
        {
            return Ok(Self { root: root.to_path_buf() });
        }
        let here = std::env::current_dir().context("no working directory")?;
        match here.ancestors().find(|folder| is_root(folder)) {
            Some(root) => Ok(Self { root: root.to_path_buf() }),
            None => {
                bail!("{} is not inside a checkout of cofferdam; run `cargo xtask` in one", here.display())
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What tests and the demo look for lies here whatever `CARGO_TARGET_DIR` says.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.target().join("plugins")
    }

    pub(crate) fn guests(&self) -> PathBuf {
        self.target().join("guests")
    }

    pub(crate) fn demos(&self) -> PathBuf {
        self.target().join("demo")
    }

    /// Logs, locks and stamps of our own.
    pub(crate) fn notes(&self) -> PathBuf {
        self.target().join("xtask")
    }

    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.notes().join("logs").join(format!("{step}.log"))
    }

    /// As a person would type it from the root of the checkout.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn is_root(folder: &Path) -> bool {
    folder.join("xtask/Cargo.toml").is_file() && folder.join("wit").is_dir()
}
