//! Notes what has been written and not synced, so that a test can take a killed daemon's file for that of a machine that lost
//! its power (docs: delivery, "Proof"). In no release build.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use redb::StorageBackend;

use super::Storage;

/// Names the file of the notes.
const VARIABLE: &str = "COFFERDAM_UNSYNCED";

/// As it was, unless the environment asks for notes.
pub(super) fn noted(storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
    match std::env::var_os(VARIABLE) {
        Some(notes) => Arc::new(Noted { storage, notes: notes.into() }),
        None => storage,
    }
}

struct Noted {
    storage: Arc<dyn Storage>,
    notes: PathBuf,
}

impl Storage for Noted {
    fn open(&self, first: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = self.storage.open(first)?;
        // What a killed process had not synced is still not synced.
        let notes = OpenOptions::new().create(true).append(true).open(&self.notes)?;
        Ok(Box::new(NotedFile { file, notes }))
    }

    fn size(&self) -> io::Result<u64> {
        self.storage.size()
    }

    fn name(&self) -> String {
        self.storage.name()
    }
}

#[derive(Debug)]
struct NotedFile {
    file: Box<dyn StorageBackend>,
    notes: File,
}

impl NotedFile {
    /// Kind, offset or length, what was there, what is to be there. Whole in one write, before the change itself.
    fn note(&self, kind: u8, at: u64, before: &[u8], after: &[u8]) -> io::Result<()> {
        let mut note = Vec::with_capacity(25 + before.len() + after.len());
        note.push(kind);
        for number in [at, before.len() as u64, after.len() as u64] {
            note.extend(number.to_le_bytes());
        }
        note.extend(before);
        note.extend(after);
        (&self.notes).write_all(&note)
    }
}

impl StorageBackend for NotedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.file.len()?;
        self.note(b'l', len, &before.to_le_bytes(), &[])?;
        self.file.set_len(len)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let there = self.file.len()?.saturating_sub(offset);
        let mut before = vec![0; data.len().min(usize::try_from(there).unwrap_or(usize::MAX))];
        self.file.read(offset, &mut before)?;
        self.note(b'w', offset, &before, data)?;
        self.file.write(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.notes.set_len(0)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
