//! What the local bus asks of a store: one writer, groups of operations, four tables, a first and a last key.

use std::path::Path;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The tables of the bus that its hot path touches.
#[derive(Clone, Copy)]
pub enum Table {
    Messages,
    Subjects,
    Cells,
    Consumers,
}

pub enum Op {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

/// A store in one of its settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `Durability::Immediate`, one sync for each group.
    Redb,
    /// As `Redb`, with two-phase commit: two syncs for each group.
    RedbTwoPhase,
    /// As `Redb`, with quick repair (which implies two-phase commit).
    RedbQuickRepair,
    /// `PersistMode::SyncData`, with memtables and journals bounded to a footprint like redb's.
    Fjall,
    /// As `Fjall`, with memtables and journals as large as fjall makes them by default.
    FjallDefaults,
}

impl Variant {
    pub const ALL: [Self; 5] =
        [Self::Redb, Self::RedbTwoPhase, Self::RedbQuickRepair, Self::Fjall, Self::FjallDefaults];

    pub fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::RedbTwoPhase => "redb-two-phase",
            Self::RedbQuickRepair => "redb-quick-repair",
            Self::Fjall => "fjall",
            Self::FjallDefaults => "fjall-defaults",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|variant| variant.name() == name)
            .ok_or_else(|| format!("no variant is called {name}").into())
    }

    pub fn open(self, dir: &Path) -> Result<Box<dyn Store>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Self::Redb | Self::RedbTwoPhase | Self::RedbQuickRepair => {
                Box::new(crate::redb_store::RedbStore::open(dir, self)?)
            }
            Self::Fjall | Self::FjallDefaults => Box::new(crate::fjall_store::FjallStore::open(dir, self)?),
        })
    }
}

pub trait Store: Send + Sync {
    /// Writes a group all or not at all; with `sync`, it has reached the disk when this returns.
    fn apply(&self, group: &[Op], sync: bool) -> Result<()>;

    /// First and last sequence of a stream, from a snapshot.
    fn bounds(&self, stream: u32) -> Result<Option<(u64, u64)>>;

    /// The oldest message of a stream, as a consumer that reads from the start finds it.
    fn head(&self, stream: u32) -> Result<Option<Vec<u8>>>;

    /// Waits for what the store does in the background, so that it does not run on another's clock.
    fn settle(&self);
}

pub const CACHE_BYTES: u64 = 64 << 20;

pub fn message_key(stream: u32, seq: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&stream.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub fn seq_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.get(4..12).ok_or("a message key is too short")?.try_into()?))
}
