//! What is on disk: tables and their keys. Nothing is read or written but through here.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::{
    fault::Fault,
    rows::{CellRow, DurableRow, KeyRow, StreamRow, message_row, stored},
};
use crate::api::{Message, Stored};

/// Of everything below. One that is higher was written by a newer version.
const FORMAT: u64 = 1;

type Rows = &'static [u8];
pub(super) type StreamId = u32;
pub(super) type DurableId = u32;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// By name.
const STREAMS: TableDefinition<'_, &str, Rows> = TableDefinition::new("streams");
/// Stream and sequence.
const MESSAGES: TableDefinition<'_, (StreamId, u64), Rows> = TableDefinition::new("messages");
/// The newest message of each subject of a stream.
const SUBJECTS: TableDefinition<'_, (StreamId, &str), u64> = TableDefinition::new("subjects");
/// When messages with a time to live end: stream, time, sequence.
const EXPIRIES: TableDefinition<'_, (StreamId, u64, u64), ()> = TableDefinition::new("expiries");
/// By stream and name.
const DURABLES: TableDefinition<'_, (StreamId, &str), Rows> = TableDefinition::new("durables");
/// What is settled above a durable's floor: a bit for each sequence, [`CHUNK`] to a row.
const SETTLED: TableDefinition<'_, (DurableId, u64), Rows> = TableDefinition::new("settled");
/// Events that are to come again: how often they came, and not before when.
const AGAIN: TableDefinition<'_, (DurableId, u64), (u32, u64)> = TableDefinition::new("again");
/// Timers by time and id.
const TIMERS: TableDefinition<'_, (u64, &str), Rows> = TableDefinition::new("timers");
/// When each timer is due, by id.
const TIMES: TableDefinition<'_, &str, u64> = TableDefinition::new("times");
/// By space and name.
const CELLS: TableDefinition<'_, (&str, &str), Rows> = TableDefinition::new("cells");
/// The last revision in each bucket.
const BUCKETS: TableDefinition<'_, &str, u64> = TableDefinition::new("buckets");
/// By bucket and key.
const KEYS: TableDefinition<'_, (&str, &str), Rows> = TableDefinition::new("keys");

/// Sequences in one row of `settled`.
pub(super) const CHUNK: u64 = 1024;
pub(super) type Chunk = [u8; (CHUNK / 8) as usize];

/// The tables of one write transaction. What it reads is as this transaction has it.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    streams: Table<'t, &'static str, Rows>,
    messages: Table<'t, (StreamId, u64), Rows>,
    subjects: Table<'t, (StreamId, &'static str), u64>,
    expiries: Table<'t, (StreamId, u64, u64), ()>,
    durables: Table<'t, (StreamId, &'static str), Rows>,
    settled: Table<'t, (DurableId, u64), Rows>,
    again: Table<'t, (DurableId, u64), (u32, u64)>,
    timers: Table<'t, (u64, &'static str), Rows>,
    times: Table<'t, &'static str, u64>,
    cells: Table<'t, (&'static str, &'static str), Rows>,
    buckets: Table<'t, &'static str, u64>,
    keys: Table<'t, (&'static str, &'static str), Rows>,
    /// Something was written: the transaction is worth a sync.
    pub(super) dirty: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn open(tx: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            meta: tx.open_table(META)?,
            streams: tx.open_table(STREAMS)?,
            messages: tx.open_table(MESSAGES)?,
            subjects: tx.open_table(SUBJECTS)?,
            expiries: tx.open_table(EXPIRIES)?,
            durables: tx.open_table(DURABLES)?,
            settled: tx.open_table(SETTLED)?,
            again: tx.open_table(AGAIN)?,
            timers: tx.open_table(TIMERS)?,
            times: tx.open_table(TIMES)?,
            cells: tx.open_table(CELLS)?,
            buckets: tx.open_table(BUCKETS)?,
            keys: tx.open_table(KEYS)?,
            dirty: false,
        })
    }

    /// Checks what wrote the data, or writes that we did.
    pub(super) fn check_format(&mut self) -> Result<(), Fault> {
        let found = self.meta.get("format")?.map(|v| v.value());
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(Fault::Newer { found, known: FORMAT }),
            None => {
                self.meta.insert("format", FORMAT)?;
                self.dirty = true;
                Ok(())
            }
        }
    }

    /// A number that no stream or durable had before.
    pub(super) fn new_id(&mut self) -> Result<u32, Fault> {
        let id = self.count("last id")?;
        u32::try_from(id).map_err(|_| Fault::Damaged("ids are used up".to_owned()))
    }

    pub(super) fn count_opening(&mut self) -> Result<(), Fault> {
        self.count("openings").map(drop)
    }

    /// Which bus this is: made up by whoever opens it first.
    pub(super) fn identity(&mut self, new: u64) -> Result<u64, Fault> {
        if let Some(known) = self.meta.get("identity")?.map(|v| v.value()) {
            return Ok(known);
        }
        self.dirty = true;
        self.meta.insert("identity", new)?;
        Ok(new)
    }

    fn count(&mut self, what: &str) -> Result<u64, Fault> {
        self.dirty = true;
        let next = self.meta.get(what)?.map_or(0, |v| v.value()) + 1;
        self.meta.insert(what, next)?;
        Ok(next)
    }

    pub(super) fn streams(&self) -> Result<Vec<(String, StreamRow)>, Fault> {
        let rows = self.streams.iter()?.map(|row| {
            let (name, row) = row?;
            Ok((name.value().to_owned(), StreamRow::decode(row.value())?))
        });
        rows.collect()
    }

    pub(super) fn put_stream(&mut self, name: &str, row: &StreamRow) -> Result<(), Fault> {
        self.dirty = true;
        self.streams.insert(name, row.encode_to_vec().as_slice())?;
        Ok(())
    }

    /// With all that it holds; its durables are the caller's.
    pub(super) fn delete_stream(&mut self, name: &str, id: StreamId) -> Result<(), Fault> {
        self.dirty = true;
        self.streams.remove(name)?;
        self.messages.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
        self.subjects.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
        self.expiries.retain_in((id, 0, 0)..=(id, u64::MAX, u64::MAX), |_, ()| false)?;
        Ok(())
    }

    pub(super) fn put_message(
        &mut self,
        stream: StreamId,
        stored: &Stored,
        expiry: Option<u64>,
    ) -> Result<(), Fault> {
        self.dirty = true;
        self.messages
            .insert((stream, stored.sequence), message_row(&stored.message, stored.timestamp).as_slice())?;
        self.subjects.insert((stream, stored.message.subject.as_str()), stored.sequence)?;
        if let Some(at) = expiry {
            self.expiries.insert((stream, at, stored.sequence), ())?;
        }
        Ok(())
    }

    /// Removes a message and gives it, if it was there.
    pub(super) fn delete_message(
        &mut self,
        stream: StreamId,
        sequence: u64,
    ) -> Result<Option<Stored>, Fault> {
        let Some(removed) =
            self.messages.remove((stream, sequence))?.map(|row| stored(sequence, row.value()))
        else {
            return Ok(None);
        };
        self.dirty = true;
        let removed = removed?;
        let subject = removed.message.subject.as_str();
        if self.last_of(stream, subject)? == Some(sequence) {
            self.subjects.remove((stream, subject))?;
        }
        Ok(Some(removed))
    }

    pub(super) fn subject_of(&self, stream: StreamId, sequence: u64) -> Result<Option<String>, Fault> {
        let row = self.messages.get((stream, sequence))?;
        row.map(|row| Ok(stored(sequence, row.value())?.message.subject)).transpose()
    }

    /// Notes the newest message of a subject before `sequence`, if there is one.
    pub(super) fn find_last(&mut self, stream: StreamId, subject: &str, sequence: u64) -> Result<(), Fault> {
        for row in self.messages.range((stream, 0)..(stream, sequence))?.rev() {
            let (key, row) = row?;
            let found = stored(key.value().1, row.value())?;
            if found.message.subject == subject {
                self.dirty = true;
                self.subjects.insert((stream, subject), found.sequence)?;
                break;
            }
        }
        Ok(())
    }

    /// The first message from `sequence` on.
    pub(super) fn message_from(&self, stream: StreamId, sequence: u64) -> Result<Option<Stored>, Fault> {
        match self.messages.range((stream, sequence)..=(stream, u64::MAX))?.next() {
            Some(row) => {
                let (key, row) = row?;
                stored(key.value().1, row.value()).map(Some)
            }
            None => Ok(None),
        }
    }

    /// From the newest back to the oldest, as long as `more` says so.
    pub(super) fn backwards(
        &self,
        stream: StreamId,
        mut more: impl FnMut(Stored) -> bool,
    ) -> Result<(), Fault> {
        for row in self.messages.range((stream, 0)..=(stream, u64::MAX))?.rev() {
            let (key, row) = row?;
            if !more(stored(key.value().1, row.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// The sequence of a subject's newest message.
    pub(super) fn last_of(&self, stream: StreamId, subject: &str) -> Result<Option<u64>, Fault> {
        Ok(self.subjects.get((stream, subject))?.map(|v| v.value()))
    }

    /// The message whose time to live ends first: when, and its sequence.
    pub(super) fn next_expiry(&self, stream: StreamId) -> Result<Option<(u64, u64)>, Fault> {
        match self.expiries.range((stream, 0, 0)..=(stream, u64::MAX, u64::MAX))?.next() {
            Some(row) => {
                let (_, at, sequence) = row?.0.value();
                Ok(Some((at, sequence)))
            }
            None => Ok(None),
        }
    }

    pub(super) fn delete_expiry(&mut self, stream: StreamId, at: u64, sequence: u64) -> Result<(), Fault> {
        self.dirty = true;
        self.expiries.remove((stream, at, sequence))?;
        Ok(())
    }

    pub(super) fn durables(&self, stream: StreamId) -> Result<Vec<(String, DurableRow)>, Fault> {
        let mut found = Vec::new();
        for row in self.durables.range((stream, "")..)? {
            let (key, row) = row?;
            let (of, name) = key.value();
            if of != stream {
                break;
            }
            found.push((name.to_owned(), DurableRow::decode(row.value())?));
        }
        Ok(found)
    }

    pub(super) fn put_durable(
        &mut self,
        stream: StreamId,
        name: &str,
        row: &DurableRow,
    ) -> Result<(), Fault> {
        self.dirty = true;
        self.durables.insert((stream, name), row.encode_to_vec().as_slice())?;
        Ok(())
    }

    pub(super) fn delete_durable(
        &mut self,
        stream: StreamId,
        name: &str,
        id: DurableId,
    ) -> Result<(), Fault> {
        self.dirty = true;
        self.durables.remove((stream, name))?;
        self.settled.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
        self.again.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?;
        Ok(())
    }

    pub(super) fn settled(&self, durable: DurableId) -> Result<BTreeMap<u64, Chunk>, Fault> {
        let rows = self.settled.range((durable, 0)..=(durable, u64::MAX))?.map(|row| {
            let (key, row) = row?;
            let chunk = Chunk::try_from(row.value());
            let chunk =
                chunk.map_err(|_| Fault::Damaged("a row of settled events is too short".to_owned()))?;
            Ok((key.value().1, chunk))
        });
        rows.collect()
    }

    pub(super) fn put_settled(&mut self, durable: DurableId, at: u64, chunk: &Chunk) -> Result<(), Fault> {
        self.dirty = true;
        self.settled.insert((durable, at), chunk.as_slice())?;
        Ok(())
    }

    pub(super) fn delete_settled(&mut self, durable: DurableId, at: u64) -> Result<(), Fault> {
        self.dirty = true;
        self.settled.remove((durable, at))?;
        Ok(())
    }

    /// Sequence, how often it came, and not before when it is to come again.
    pub(super) fn again(&self, durable: DurableId) -> Result<BTreeMap<u64, (u32, u64)>, Fault> {
        let rows = self.again.range((durable, 0)..=(durable, u64::MAX))?.map(|row| {
            let (key, row) = row?;
            Ok((key.value().1, row.value()))
        });
        rows.collect()
    }

    pub(super) fn put_again(
        &mut self,
        durable: DurableId,
        sequence: u64,
        count: u32,
        not_before: u64,
    ) -> Result<(), Fault> {
        self.dirty = true;
        self.again.insert((durable, sequence), (count, not_before))?;
        Ok(())
    }

    pub(super) fn delete_again(&mut self, durable: DurableId, sequence: u64) -> Result<(), Fault> {
        self.dirty = true;
        self.again.remove((durable, sequence))?;
        Ok(())
    }

    /// One that is there is moved.
    pub(super) fn put_timer(&mut self, id: &str, at: u64, message: &Message) -> Result<(), Fault> {
        self.delete_timer(id)?;
        self.dirty = true;
        self.times.insert(id, at)?;
        self.timers.insert((at, id), message_row(message, 0).as_slice())?;
        Ok(())
    }

    pub(super) fn delete_timer(&mut self, id: &str) -> Result<(), Fault> {
        if let Some(at) = self.times.remove(id)?.map(|at| at.value()) {
            self.dirty = true;
            self.timers.remove((at, id))?;
        }
        Ok(())
    }

    /// When the next timer is due.
    pub(super) fn next_timer(&self) -> Result<Option<u64>, Fault> {
        Ok(self.timers.first()?.map(|(key, _)| key.value().0))
    }

    /// The timer that is due first, if it is due by then.
    pub(super) fn due_timer(&self, by: u64) -> Result<Option<(String, Message)>, Fault> {
        match self.timers.first()? {
            Some((key, row)) if key.value().0 <= by => {
                Ok(Some((key.value().1.to_owned(), stored(0, row.value())?.message)))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn cell(&self, space: &str, name: &str) -> Result<Option<CellRow>, Fault> {
        Ok(self.cells.get((space, name))?.map(|row| CellRow::decode(row.value())).transpose()?)
    }

    pub(super) fn put_cell(&mut self, space: &str, name: &str, row: &CellRow) -> Result<(), Fault> {
        self.dirty = true;
        self.cells.insert((space, name), row.encode_to_vec().as_slice())?;
        Ok(())
    }

    pub(super) fn key(&self, bucket: &str, key: &str) -> Result<Option<KeyRow>, Fault> {
        Ok(self.keys.get((bucket, key))?.map(|row| KeyRow::decode(row.value())).transpose()?)
    }

    /// Writes the key with the bucket's next revision, and gives that.
    pub(super) fn put_key(&mut self, bucket: &str, key: &str, value: Option<Bytes>) -> Result<u64, Fault> {
        self.dirty = true;
        let revision = self.buckets.get(bucket)?.map_or(0, |v| v.value()) + 1;
        self.buckets.insert(bucket, revision)?;
        self.keys.insert((bucket, key), KeyRow { revision, value }.encode_to_vec().as_slice())?;
        Ok(revision)
    }
}

/// What readers see: the state after some group, from any thread. A table that nothing was written to yet is empty.
pub(super) struct View(pub(super) ReadTransaction);

impl View {
    pub(super) fn last(&self, stream: StreamId, subject: &str) -> Result<Option<Stored>, Fault> {
        let Some(subjects) = existing(self.0.open_table(SUBJECTS))? else { return Ok(None) };
        let Some(sequence) = subjects.get((stream, subject))?.map(|v| v.value()) else { return Ok(None) };
        let Some(messages) = existing(self.0.open_table(MESSAGES))? else { return Ok(None) };
        messages.get((stream, sequence))?.map(|row| stored(sequence, row.value())).transpose()
    }

    pub(super) fn message(&self, stream: StreamId, sequence: u64) -> Result<Option<Stored>, Fault> {
        let Some(messages) = existing(self.0.open_table(MESSAGES))? else { return Ok(None) };
        messages.get((stream, sequence))?.map(|row| stored(sequence, row.value())).transpose()
    }

    /// Messages from `sequence` on, for as long as `take` says so.
    pub(super) fn scan(
        &self,
        stream: StreamId,
        sequence: u64,
        mut take: impl FnMut(Stored) -> bool,
    ) -> Result<(), Fault> {
        let Some(messages) = existing(self.0.open_table(MESSAGES))? else { return Ok(()) };
        for row in messages.range((stream, sequence)..=(stream, u64::MAX))? {
            let (key, row) = row?;
            if !take(stored(key.value().1, row.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// The first sequence whose message was stored at `time` or later. Times never go back within a stream.
    pub(super) fn since(&self, stream: StreamId, time: u64, first: u64, last: u64) -> Result<u64, Fault> {
        let Some(messages) = existing(self.0.open_table(MESSAGES))? else { return Ok(first) };
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            // The first that is there from the middle on decides for those that are not.
            let found = messages.range((stream, middle)..=(stream, u64::MAX))?.next().transpose()?;
            match found {
                Some((key, row)) => {
                    let found = stored(key.value().1, row.value())?;
                    if found.timestamp >= time {
                        high = middle;
                    } else {
                        low = found.sequence + 1;
                    }
                }
                None => high = middle,
            }
        }
        Ok(low)
    }

    pub(super) fn cell(&self, space: &str, name: &str) -> Result<Option<CellRow>, Fault> {
        let Some(cells) = existing(self.0.open_table(CELLS))? else { return Ok(None) };
        Ok(cells.get((space, name))?.map(|row| CellRow::decode(row.value())).transpose()?)
    }

    pub(super) fn key(&self, bucket: &str, key: &str) -> Result<Option<KeyRow>, Fault> {
        let Some(keys) = existing(self.0.open_table(KEYS))? else { return Ok(None) };
        Ok(keys.get((bucket, key))?.map(|row| KeyRow::decode(row.value())).transpose()?)
    }

    /// Every key of a bucket, deleted ones included, sorted.
    pub(super) fn keys(&self, bucket: &str) -> Result<Vec<(String, KeyRow)>, Fault> {
        let mut found = Vec::new();
        let Some(keys) = existing(self.0.open_table(KEYS))? else { return Ok(found) };
        for row in keys.range((bucket, "")..)? {
            let (key, row) = row?;
            let (of, name) = key.value();
            if of != bucket {
                break;
            }
            found.push((name.to_owned(), KeyRow::decode(row.value())?));
        }
        Ok(found)
    }
}

fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, Fault> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
