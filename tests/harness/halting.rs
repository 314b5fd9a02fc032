//! A bus's file that stops at a chosen sync, before it or after it, for good: its process is killed there.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cofferdam_bus::local::Storage;
use redb::{StorageBackend, backends::FileBackend};

/// Where the next sync stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// All is written; a process that dies loses nothing of that, a machine might.
    BeforeSync,
    /// Nobody has been told.
    AfterSync,
}

pub struct Halting {
    file: PathBuf,
    halt: Halt,
    armed: Arc<AtomicBool>,
    /// Called when it stops.
    stopped: fn(),
}

impl Halting {
    /// `bus.redb` of a directory. Stops at the first sync after `armed` was set.
    pub fn new(directory: &str, halt: Halt, armed: Arc<AtomicBool>, stopped: fn()) -> Halting {
        Halting { file: PathBuf::from(directory).join("bus.redb"), halt, armed, stopped }
    }
}

impl Storage for Halting {
    fn open(&self, _: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file)?;
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(HaltingFile { file, halt: self.halt, armed: self.armed.clone(), stopped: self.stopped }))
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

#[derive(Debug)]
struct HaltingFile {
    file: FileBackend,
    halt: Halt,
    armed: Arc<AtomicBool>,
    stopped: fn(),
}

impl HaltingFile {
    fn stop(&self, here: Halt) {
        if self.halt == here && self.armed.load(Ordering::Relaxed) {
            (self.stopped)();
            loop {
                std::thread::park();
            }
        }
    }
}

impl StorageBackend for HaltingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.stop(Halt::BeforeSync);
        self.file.sync_data()?;
        self.stop(Halt::AfterSync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}
