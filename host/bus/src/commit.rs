//! What a commit is made of: where an event commits, what its run was based on, what it changes and what came of that. How
//! it is done is each bus's own.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::api::Message;

/// Where an event commits. It follows from the event and the subscription alone, so that every run, host and version
/// agrees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Point {
    /// The cell of an order key: state, compared and set.
    Cell { space: String, cell: String },
    /// A record of its own, create-only.
    Record,
    /// The message id of the one message that the event may publish, within its stream's duplicate window.
    Publish,
}

/// State of a cell as of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellState {
    pub entries: BTreeMap<String, Bytes>,
}

impl CellState {
    /// Of keys and values together.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    pub(crate) fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.entries.insert(key, value),
                Write::Delete { key } => self.entries.remove(&key),
            };
        }
    }
}

/// What is known of an event before it runs.
#[derive(Debug)]
pub enum Opened {
    /// It committed in an earlier run. What that run left unapplied has been applied, and the delivery acked.
    Settled,
    /// It has not committed, as far as is known: run it.
    Fresh(Snapshot),
}

/// What a run is based on; goes back into [`Bus::commit`](crate::Bus::commit).
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub point: Point,
    /// Empty unless the point is a cell.
    pub state: CellState,
    /// The cell's revision, 0 where there is none yet.
    pub(crate) revision: u64,
    /// The bus's own notes (the rest of the cell as it was read).
    pub(crate) notes: Option<Arc<dyn Any + Send + Sync>>,
}

/// A cell besides the event's own, as it was read; with what is written to it, it goes back into
/// [`Bus::commit`](crate::Bus::commit).
#[derive(Debug, Clone)]
pub struct OtherCell {
    pub space: String,
    pub cell: String,
    pub state: CellState,
    /// None: it was only read. The commit checks all the same that it is as it was.
    pub writes: Vec<Write>,
    /// 0 where there is none yet.
    pub(crate) revision: u64,
    pub(crate) notes: Option<Arc<dyn Any + Send + Sync>>,
}

impl OtherCell {
    /// The same cell, written by nobody since.
    pub(crate) fn is_still(&self, now: &OtherCell) -> bool {
        (&self.space, &self.cell, self.revision) == (&now.space, &now.cell, now.revision)
    }
}

/// The bus's own notes follow from the rest.
impl PartialEq for OtherCell {
    fn eq(&self, other: &OtherCell) -> bool {
        self.is_still(other) && self.state == other.state && self.writes == other.writes
    }
}

impl Eq for OtherCell {}

/// A write to a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { key: String, value: Bytes },
    Delete { key: String },
}

/// A message for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// No two timers have the same. Plain tokens with dots between them.
    pub id: String,
    /// Nanoseconds since the epoch; what has passed is at once.
    pub at: u64,
    /// Stored then, once, with the timer's id as its message id. Where no stream takes it, it is tried again every minute.
    pub message: Message,
}

/// Other cells in one change. On NATS each is a message of one batch, of which a server takes 1,000 at most.
pub const MAX_OTHERS: usize = 64;

/// What an event does, all or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The event as its plugin knows it, where that is not the delivery's own id: an inbox delivers events of other
    /// durables. Named as the cause of what is stored.
    pub event: Option<String>,
    /// What the message ids of the effects begin with, if not the event's id: for an end of the event that must not be
    /// taken for another end of it.
    pub ids: Option<String>,
    /// To the event's own cell; only with [`Point::Cell`].
    pub writes: Vec<Write>,
    /// Other cells that the run read or writes, up to [`MAX_OTHERS`]; not with [`Point::Publish`]. One that changed since it was
    /// read is a conflict.
    pub others: Vec<OtherCell>,
    /// Stored in this order (with a cell: each after the one before it) with the message ids `<event>.<ordinal>`, ordinals from 0.
    pub effects: Vec<Message>,
    /// Set when the event commits.
    pub timers: Vec<Timer>,
    /// Timers by id that are not to fire, if they have not by then.
    pub cancels: Vec<String>,
}

impl Change {
    /// The event that is named as the cause.
    pub(crate) fn cause<'a>(&'a self, delivery: &'a str) -> &'a str {
        self.event.as_deref().unwrap_or(delivery)
    }

    /// The message id of an effect.
    pub(crate) fn id(&self, delivery: &str, ordinal: usize) -> String {
        format!("{}.{ordinal}", self.ids.as_deref().unwrap_or(self.cause(delivery)))
    }

    /// Nothing is written, stored, set or cancelled, and nothing is to be checked.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.others.is_empty()
            && self.effects.is_empty()
            && self.timers.is_empty()
            && self.cancels.is_empty()
    }
}

/// An effect that its stream refused for good after the commit; its dead letter is stored in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub ordinal: usize,
    pub subject: String,
    pub reason: String,
}

/// The event is committed, applied and acked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    pub refused: Vec<Refused>,
}

/// Makes the dead letter for an effect that can't be stored, from the effect and the reason.
pub type Undeliverable = Arc<dyn Fn(&Message, &str) -> Message + Send + Sync>;
