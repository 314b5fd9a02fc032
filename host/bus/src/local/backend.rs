//! Any storage, as the store wants it.

use std::{io, ops::Bound};

use redb::{BackendError, StorageBackend};

/// What a file of the store begins with. Written last when one is made.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// How large a file may be that was only just made.
const NEW: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Backend(Box<dyn StorageBackend>);

impl Backend {
    /// Where a crash ended the very first start, nothing was confirmed yet, and the store would not know the file for its own:
    /// it is emptied.
    pub(super) fn new(storage: Box<dyn StorageBackend>, first: bool) -> io::Result<Backend> {
        let mut start = [0; MAGIC.len()];
        let length = storage.len()?;
        if first && length > 0 {
            let known = usize::try_from(length).unwrap_or(usize::MAX).min(start.len());
            if let Some(start) = start.get_mut(..known) {
                storage.read(0, start)?;
            }
            if length <= NEW && is_unfinished(start) {
                storage.set_len(0)?;
            }
        }
        Ok(Backend(storage))
    }
}

/// The magic number with parts that are still zero.
fn is_unfinished(start: [u8; MAGIC.len()]) -> bool {
    start != MAGIC && start.iter().zip(MAGIC).all(|(byte, magic)| *byte == 0 || *byte == magic)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_was_never_finished_is_emptied() {
        assert!(is_unfinished([0; 9]) && is_unfinished(*b"redb\0\0\0\0\0"));
        for kept in [MAGIC, *b"SQLite fo", *b"redb\0\0\0\0x"] {
            assert!(!is_unfinished(kept), "{kept:?}");
        }
    }
}
