//! The bus's tables in redb.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, Table as RedbTable, TableDefinition, WriteTransaction};

use crate::store::{CACHE_BYTES, Op, Result, Store, Table, Variant, message_key, seq_of};

type Bytes = &'static [u8];

const MESSAGES: TableDefinition<Bytes, Bytes> = TableDefinition::new("messages");
const SUBJECTS: TableDefinition<Bytes, Bytes> = TableDefinition::new("subjects");
const CELLS: TableDefinition<Bytes, Bytes> = TableDefinition::new("cells");
const CONSUMERS: TableDefinition<Bytes, Bytes> = TableDefinition::new("consumers");

pub struct RedbStore {
    db: Database,
    variant: Variant,
}

struct Tables<'t> {
    messages: RedbTable<'t, Bytes, Bytes>,
    subjects: RedbTable<'t, Bytes, Bytes>,
    cells: RedbTable<'t, Bytes, Bytes>,
    consumers: RedbTable<'t, Bytes, Bytes>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            messages: txn.open_table(MESSAGES)?,
            subjects: txn.open_table(SUBJECTS)?,
            cells: txn.open_table(CELLS)?,
            consumers: txn.open_table(CONSUMERS)?,
        })
    }

    fn get(&mut self, table: Table) -> &mut RedbTable<'t, Bytes, Bytes> {
        match table {
            Table::Messages => &mut self.messages,
            Table::Subjects => &mut self.subjects,
            Table::Cells => &mut self.cells,
            Table::Consumers => &mut self.consumers,
        }
    }
}

impl RedbStore {
    pub fn open(dir: &Path, variant: Variant) -> Result<Self> {
        let db = Database::builder().set_cache_size(CACHE_BYTES as usize).create(dir.join("bus.redb"))?;
        Ok(Self { db, variant })
    }
}

impl Store for RedbStore {
    fn apply(&self, group: &[Op], sync: bool) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(if sync { Durability::Immediate } else { Durability::None })?;
        txn.set_two_phase_commit(self.variant == Variant::RedbTwoPhase);
        txn.set_quick_repair(self.variant == Variant::RedbQuickRepair);
        {
            let mut tables = Tables::open(&txn)?;
            for op in group {
                match op {
                    Op::Put(table, key, value) => {
                        tables.get(*table).insert(key.as_slice(), value.as_slice())?;
                    }
                    Op::Delete(table, key) => {
                        tables.get(*table).remove(key.as_slice())?;
                    }
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn bounds(&self, stream: u32) -> Result<Option<(u64, u64)>> {
        let txn = self.db.begin_read()?;
        let messages = match txn.open_table(MESSAGES) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        let (from, to) = (message_key(stream, 0), message_key(stream, u64::MAX));
        let first = messages.range(from.as_slice()..=to.as_slice())?.next().transpose()?;
        let last = messages.range(from.as_slice()..=to.as_slice())?.next_back().transpose()?;
        first
            .zip(last)
            .map(|(first, last)| Ok((seq_of(first.0.value())?, seq_of(last.0.value())?)))
            .transpose()
    }

    fn head(&self, stream: u32) -> Result<Option<Vec<u8>>> {
        let messages = self.db.begin_read()?.open_table(MESSAGES)?;
        let (from, to) = (message_key(stream, 0), message_key(stream, u64::MAX));
        let first = messages.range(from.as_slice()..=to.as_slice())?.next().transpose()?;
        Ok(first.map(|(_, value)| value.value().to_vec()))
    }

    // All work is done by the commits themselves.
    fn settle(&self) {}
}
