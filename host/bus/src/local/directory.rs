//! The directory of a bus: one process at a time, one file of data.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use redb::{StorageBackend, backends::FileBackend};

use super::Storage;
use crate::error::Error;

const DATA: &str = "bus.redb";
const LOCK: &str = "lock";

/// Ours, for as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    data: PathBuf,
    lock: File,
}

impl Directory {
    pub(super) fn take(path: &Path) -> Result<Directory, Error> {
        let shown = path.display();
        let fault = |what: &str, e: io::Error| {
            Error::Unusable(format!(
                "the directory {shown} of the embedded bus: {what}: {e}; make it writable, or choose another with \
                 [bus] local"
            ))
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| fault("it can't be made", e))?;
        let lock = private().create(true).open(path.join(LOCK));
        let mut lock = lock.map_err(|e| fault("its lock can't be opened", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who that is only helps to find it.
                let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let by =
                    if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
                return Err(Error::Unusable(format!(
                    "the directory {shown} of the embedded bus is in use by {by}; stop that, choose another directory \
                     with [bus] local, or let both use one NATS with [bus] nats"
                )));
            }
            Err(TryLockError::Error(e)) => return Err(fault("it can't be locked", e)),
        }
        let mut note = || {
            lock.rewind()?;
            lock.set_len(0)?;
            write!(lock, "{}", std::process::id())
        };
        note().map_err(|e| fault("its lock can't be written", e))?;
        Ok(Directory { data: path.join(DATA), lock })
    }
}

/// Events are nobody else's to read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Drop for Directory {
    /// Closing the file would do, but for a child that was forked just now and has it, too.
    fn drop(&mut self) {
        if let Err(e) = self.lock.unlock() {
            tracing::debug!(data = %self.data.display(), "not unlocked: {e}");
        }
    }
}

impl Storage for Directory {
    fn open(&self, first: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = private().create(first).open(&self.data)?;
        if first && let Some(directory) = self.data.parent() {
            // The file is there after a power loss, too.
            File::open(directory)?.sync_all()?;
        }
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.data)?.len())
    }

    fn name(&self) -> String {
        self.data.display().to_string()
    }
}
