//! The bus's tables in fjall.

use std::{path::Path, time::Duration};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::store::{CACHE_BYTES, Op, Result, Store, Table, Variant, message_key, seq_of};

const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 128 << 20;

pub struct FjallStore {
    db: Database,
    messages: Keyspace,
    subjects: Keyspace,
    cells: Keyspace,
    consumers: Keyspace,
}

impl FjallStore {
    pub fn open(dir: &Path, variant: Variant) -> Result<Self> {
        let mut builder = Database::builder(dir.join("bus.fjall")).cache_size(CACHE_BYTES);
        if variant == Variant::Fjall {
            builder = builder.max_journaling_size(JOURNAL_BYTES);
        }
        let db = builder.open()?;
        let options = || match variant {
            Variant::FjallDefaults => KeyspaceCreateOptions::default(),
            _ => KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES),
        };
        Ok(Self {
            messages: db.keyspace("messages", options)?,
            subjects: db.keyspace("subjects", options)?,
            cells: db.keyspace("cells", options)?,
            consumers: db.keyspace("consumers", options)?,
            db,
        })
    }

    fn get(&self, table: Table) -> &Keyspace {
        match table {
            Table::Messages => &self.messages,
            Table::Subjects => &self.subjects,
            Table::Cells => &self.cells,
            Table::Consumers => &self.consumers,
        }
    }
}

impl Store for FjallStore {
    fn apply(&self, group: &[Op], sync: bool) -> Result<()> {
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for op in group {
            match op {
                Op::Put(table, key, value) => {
                    batch.insert(self.get(*table), key.as_slice(), value.as_slice())
                }
                Op::Delete(table, key) => batch.remove(self.get(*table), key.as_slice()),
            }
        }
        Ok(batch.commit()?)
    }

    fn bounds(&self, stream: u32) -> Result<Option<(u64, u64)>> {
        let snapshot = self.db.snapshot();
        let range = message_key(stream, 0)..=message_key(stream, u64::MAX);
        let first =
            snapshot.range(&self.messages, range.clone()).next().map(|guard| guard.key()).transpose()?;
        let last = snapshot.range(&self.messages, range).next_back().map(|guard| guard.key()).transpose()?;
        first.zip(last).map(|(first, last)| Ok((seq_of(&first)?, seq_of(&last)?))).transpose()
    }

    fn head(&self, stream: u32) -> Result<Option<Vec<u8>>> {
        let range = message_key(stream, 0)..=message_key(stream, u64::MAX);
        let first = self.db.snapshot().range(&self.messages, range).next();
        Ok(first.map(|guard| guard.value()).transpose()?.map(|value| value.to_vec()))
    }

    fn settle(&self) {
        let mut quiet = 0;
        while quiet < 5 {
            let busy = self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
