//! What a commit stores: cells and records, as protobuf. A version that this code does not know is an error, never a
//! guess.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    api::{CellState, Change, Message, Timer, Write},
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
    #[prost(message, repeated, tag = "4")]
    pub(super) timers: Vec<Later>,
    #[prost(string, repeated, tag = "5")]
    pub(super) cancels: Vec<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) event: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(super) ids: Option<String>,
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
    #[prost(message, repeated, tag = "4")]
    pub(super) timers: Vec<Later>,
    #[prost(string, repeated, tag = "5")]
    pub(super) cancels: Vec<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) event: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(super) ids: Option<String>,
}

/// A timer to set.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Later {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(fixed64, tag = "2")]
    pub(super) at: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) message: Option<Effect>,
}

/// What a schedule carries until it fires.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::nats) struct Due {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The event that set the timer.
    #[prost(string, tag = "2")]
    cause: String,
    #[prost(message, optional, tag = "3")]
    message: Option<Effect>,
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
    pub(super) fn new(change: &Change, run: u64) -> Record {
        Record {
            format: FORMAT,
            effects: change.effects.iter().map(Effect::from).collect(),
            run,
            timers: change.timers.iter().map(Later::from).collect(),
            cancels: change.cancels.clone(),
            event: change.event.clone(),
            ids: change.ids.clone(),
        }
    }

    pub(super) fn change(&self) -> Change {
        Change {
            event: self.event.clone(),
            ids: self.ids.clone(),
            ..change(&self.effects, &self.timers, &self.cancels)
        }
    }

    pub(super) fn decode_from(subject: &str, data: &Bytes) -> Result<Record, Error> {
        check_version(subject, data)?;
        Record::decode(data.clone())
            .map_err(|e| Error::Unreadable { subject: subject.to_owned(), reason: e.to_string() })
    }
}

impl Pending {
    /// `None` if there is nothing to apply.
    pub(super) fn new(origin: &str, sequence: u64, change: &Change) -> Option<Pending> {
        (!change.effects.is_empty() || !change.timers.is_empty() || !change.cancels.is_empty()).then(|| {
            Pending {
                origin: origin.to_owned(),
                sequence,
                effects: change.effects.iter().map(Effect::from).collect(),
                timers: change.timers.iter().map(Later::from).collect(),
                cancels: change.cancels.clone(),
                event: change.event.clone(),
                ids: change.ids.clone(),
            }
        })
    }

    pub(super) fn change(&self) -> Change {
        Change {
            event: self.event.clone(),
            ids: self.ids.clone(),
            ..change(&self.effects, &self.timers, &self.cancels)
        }
    }
}

fn change(effects: &[Effect], timers: &[Later], cancels: &[String]) -> Change {
    Change {
        effects: effects.iter().map(Message::from).collect(),
        timers: timers.iter().map(Timer::from).collect(),
        cancels: cancels.to_vec(),
        ..Change::default()
    }
}

impl Due {
    pub(in crate::nats) fn encoded(cause: &str, message: &Message) -> Bytes {
        let due = Due { format: FORMAT, cause: cause.to_owned(), message: Some(message.into()) };
        due.encode_to_vec().into()
    }

    pub(in crate::nats) fn decode_from(subject: &str, data: &Bytes) -> Result<(String, Message), Error> {
        check_version(subject, data)?;
        let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
        let due = Due::decode(data.clone()).map_err(|e| unreadable(e.to_string()))?;
        let message = due.message.ok_or_else(|| unreadable("it has no message".into()))?;
        Ok((due.cause, (&message).into()))
    }
}

impl From<&Timer> for Later {
    fn from(t: &Timer) -> Later {
        Later { id: t.id.clone(), at: t.at, message: Some((&t.message).into()) }
    }
}

impl From<&Later> for Timer {
    fn from(l: &Later) -> Timer {
        let message = l.message.clone().unwrap_or_default();
        Timer { id: l.id.clone(), at: l.at, message: (&message).into() }
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
    fn what_is_to_be_applied_comes_back_as_it_was() {
        let message = |subject: &str| Message {
            subject: subject.into(),
            headers: vec![("X".into(), "1".into()), ("X".into(), "2".into())],
            data: Bytes::from_static(b"d"),
        };
        let change = Change {
            event: Some("root.7".into()),
            ids: Some("root.7.dead".into()),
            writes: Vec::new(),
            others: Vec::new(),
            effects: vec![message("a"), message("b")],
            timers: vec![Timer { id: "t.1".into(), at: u64::MAX, message: message("c") }],
            cancels: vec!["t.2".into()],
        };
        let record: Bytes = Record::new(&change, 7).encode_to_vec().into();
        assert_eq!(Record::decode_from("s", &record).unwrap().change(), change);
        assert_eq!(Pending::new("o", 1, &change).unwrap().change(), change);
        assert_eq!(Pending::new("o", 1, &Change::default()), None);
        let due = Due::encoded("o.1", &message("c"));
        assert_eq!(Due::decode_from("s", &due), Ok(("o.1".to_owned(), message("c"))));
        assert!(Due::decode_from("s", &Bytes::new()).is_err());
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
