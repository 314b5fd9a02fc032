//! Asks for free disk before something large is made, and says how much is needed and for what.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::steps::mebibytes;
use crate::sys;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn require(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).context("no folder at all")?;
    let free =
        sys::free_disk(there).with_context(|| format!("can't ask the free disk of {}", there.display()))?;
    if free < bytes {
        bail!(
            "{what} needs {} of free disk, {} has {}: make room there (`cargo clean` frees what was built)",
            mebibytes(bytes),
            there.display(),
            mebibytes(free)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_disk_says_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        require(&folder.path().join("not/yet/there"), 1, "a test").unwrap();
        let error = require(folder.path(), 1 << 60, "a test").unwrap_err().to_string();
        assert!(error.starts_with("a test needs 1099511627776 MiB of free disk"), "{error}");
    }
}
