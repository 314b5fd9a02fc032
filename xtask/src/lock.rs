//! One at a time: two invocations that would write the same folder queue here.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt;
use crate::steps::Step;

/// Held until it is dropped, or until the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "holding the file open holds the lock")] File);

impl Lock {
    pub(crate) fn take(path: &Path, step: &Step) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("can't open the lock {}", path.display()))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => {
                    step.at("waiting for another xtask that does the same");
                    interrupt::check()?;
                    interrupt::pause(Duration::from_millis(100));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("can't lock {}", path.display()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Steps;

    #[test]
    fn a_lock_is_free_again_once_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/lock");
        let steps = Steps::new();
        for _ in 0..2 {
            steps.run("lock", |step| Lock::take(&path, step).map(drop)).unwrap();
        }
        let held = steps.run("lock", |step| Lock::take(&path, step)).unwrap();
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }
}
