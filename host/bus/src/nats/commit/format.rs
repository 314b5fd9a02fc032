//! What a commit stores: cells and records, as protobuf. A version that this code does not know is an error, never a
//! guess.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    api::{CellState, Message, Write},
    error::Error,
};

/// The newest that this version writes and reads.
const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Cell {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// As the caller named it; the subject has only its hash.
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) entries: BTreeMap<String, Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) pending: Vec<Pending>,
    #[prost(message, repeated, tag = "5")]
    pub(super) settled: Vec<Settled>,
    /// Random, of the run that wrote this.
    #[prost(fixed64, tag = "6")]
    pub(super) run: u64,
}

/// Effects of an event that are not known to be applied.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pending {
    #[prost(string, tag = "1")]
    pub(super) origin: String,
    #[prost(uint64, tag = "2")]
    pub(super) sequence: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) effects: Vec<Effect>,
}

/// The events of one origin that have committed here.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Settled {
    #[prost(string, tag = "1")]
    pub(super) origin: String,
    /// This one and all below, whether they committed here or elsewhere.
    #[prost(uint64, tag = "2")]
    pub(super) floor: u64,
    /// Ascending, each as its distance from the one before (the first from the floor).
    #[prost(uint64, repeated, tag = "3")]
    pub(super) above: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    #[prost(message, repeated, tag = "2")]
    pub(super) effects: Vec<Effect>,
    #[prost(fixed64, tag = "3")]
    pub(super) run: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Effect {
    #[prost(string, tag = "1")]
    pub(super) subject: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// Read before anything else, so that a newer format is told apart from damage.
#[derive(Clone, PartialEq, prost::Message)]
struct Version {
    #[prost(uint32, tag = "1")]
    format: u32,
}

fn check_version(subject: &str, data: &Bytes) -> Result<(), Error> {
    let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
    let version = Version::decode(data.clone()).map_err(|e| unreadable(e.to_string()))?;
    match version.format {
        FORMAT => Ok(()),
        other => Err(unreadable(format!("format {other}; this version knows {FORMAT}"))),
    }
}

impl Cell {
    pub(super) fn decode_from(subject: &str, name: &str, data: &Bytes) -> Result<Cell, Error> {
        check_version(subject, data)?;
        let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
        let cell = Cell::decode(data.clone()).map_err(|e| unreadable(e.to_string()))?;
        if cell.name != name {
            return Err(unreadable(format!("it is the cell {:?}, not {name:?}", cell.name)));
        }
        Ok(cell)
    }

    pub(super) fn state(&self) -> CellState {
        CellState { entries: self.entries.clone() }
    }

    pub(super) fn is_settled(&self, origin: &str, sequence: u64) -> bool {
        self.of(origin).is_some_and(|s| sequence <= s.floor || s.sequences().any(|q| q == sequence))
    }

    /// How many settled sequences of an origin it must remember one by one.
    pub(super) fn remembered(&self, origin: &str) -> usize {
        self.of(origin).map_or(0, |s| s.above.len())
    }

    pub(super) fn write(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.entries.insert(key.clone(), value.clone()),
                Write::Delete { key } => self.entries.remove(key),
            };
        }
    }

    pub(super) fn settle(&mut self, origin: &str, sequence: u64) {
        if !self.settled.iter().any(|s| s.origin == origin) {
            self.settled.push(Settled { origin: origin.to_owned(), ..Settled::default() });
        }
        if let Some(of) = self.settled.iter_mut().find(|s| s.origin == origin) {
            let last = of.floor + of.above.iter().sum::<u64>();
            // Nearly always it is the newest.
            if sequence > last {
                of.above.push(sequence - last);
                return;
            }
            let mut all: BTreeSet<u64> = of.sequences().collect();
            all.insert(sequence);
            of.replace(all);
        }
    }

    /// Everything of `origin` up to `floor` has settled.
    pub(super) fn raise(&mut self, origin: &str, floor: u64) {
        if let Some(of) = self.settled.iter_mut().find(|s| s.origin == origin)
            && floor > of.floor
        {
            let rest = of.sequences().collect();
            of.floor = floor;
            of.replace(rest);
        }
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = &str> {
        self.settled.iter().map(|s| s.origin.as_str())
    }

    fn of(&self, origin: &str) -> Option<&Settled> {
        self.settled.iter().find(|s| s.origin == origin)
    }

    pub(super) fn encoded(&mut self) -> Bytes {
        self.format = FORMAT;
        self.encode_to_vec().into()
    }
}

impl Settled {
    fn sequences(&self) -> impl Iterator<Item = u64> {
        self.above.iter().scan(self.floor, |at, gap| {
            *at = at.saturating_add(*gap);
            Some(*at)
        })
    }

    /// Forgets those at or below the floor.
    fn replace(&mut self, sequences: BTreeSet<u64>) {
        let mut at = self.floor;
        self.above.clear();
        for sequence in sequences.into_iter().filter(|s| *s > self.floor) {
            self.above.push(sequence - at);
            at = sequence;
        }
    }
}

impl Record {
    pub(super) fn new(effects: &[Message], run: u64) -> Record {
        Record { format: FORMAT, effects: effects.iter().map(Effect::from).collect(), run }
    }

    pub(super) fn decode_from(subject: &str, data: &Bytes) -> Result<Record, Error> {
        check_version(subject, data)?;
        Record::decode(data.clone())
            .map_err(|e| Error::Unreadable { subject: subject.to_owned(), reason: e.to_string() })
    }
}

impl From<&Message> for Effect {
    fn from(m: &Message) -> Effect {
        let header = |(name, value): &(String, String)| Header { name: name.clone(), value: value.clone() };
        Effect {
            subject: m.subject.clone(),
            headers: m.headers.iter().map(header).collect(),
            data: m.data.clone(),
        }
    }
}

impl From<&Effect> for Message {
    fn from(e: &Effect) -> Message {
        Message {
            subject: e.subject.clone(),
            headers: e.headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
            data: e.data.clone(),
        }
    }
}

pub(super) fn messages(effects: &[Effect]) -> Vec<Message> {
    effects.iter().map(Message::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_sequences_survive_a_rising_floor() {
        let mut cell = Cell::default();
        for seq in [9, 3, 5, 3, 12] {
            cell.settle("o", seq);
        }
        assert_eq!(cell.remembered("o"), 4);
        cell.raise("o", 5);
        assert_eq!(cell.remembered("o"), 2);
        for (seq, settled) in
            [(1, true), (5, true), (6, false), (9, true), (10, false), (12, true), (13, false)]
        {
            assert_eq!(cell.is_settled("o", seq), settled, "{seq}");
        }
        cell.raise("o", 2);
        assert!(cell.is_settled("o", 4), "a floor never falls");
        assert!(!cell.is_settled("other", 1));
    }

    #[test]
    fn a_cell_comes_back_as_it_was() {
        let mut cell = Cell { name: "plan 7".into(), ..Cell::default() };
        cell.write(&[
            Write::Put { key: "a".into(), value: Bytes::from_static(b"1") },
            Write::Put { key: "b".into(), value: Bytes::from_static(b"2") },
            Write::Delete { key: "a".into() },
        ]);
        cell.settle("o", 4);
        let bytes = cell.encoded();
        assert_eq!(Cell::decode_from("s", "plan 7", &bytes), Ok(cell));
    }

    #[test]
    fn other_names_newer_formats_and_garbage_are_errors() {
        let mut cell = Cell { name: "a".into(), ..Cell::default() };
        let bytes = cell.encoded();
        let newer: Bytes = Cell { format: 2, ..cell }.encode_to_vec().into();
        for (name, data) in
            [("b", bytes), ("a", newer), ("a", Bytes::from_static(b"\xff\xff")), ("a", Bytes::new())]
        {
            assert!(matches!(Cell::decode_from("s", name, &data), Err(Error::Unreadable { .. })));
        }
        let record: Bytes = Record { format: 9, ..Record::default() }.encode_to_vec().into();
        assert!(matches!(Record::decode_from("s", &record), Err(Error::Unreadable { .. })));
    }
}
