//! What the writer is asked to do. An answer comes once it is synced; none at all if the group failed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    time::Instant,
};

use super::{durable::Arrival, tables::DurableId};
use crate::{
    ahead::weight,
    api::{
        ConsumerSpec, Message, Origin, OtherCell, Point, PublishAck, StreamInfo, StreamSpec, Timer, Write,
    },
    backlog::Backlog,
    error::{CommitError, Error},
};

type Answer<T> = oneshot::Sender<T>;

pub(super) enum Op {
    Store(Store, Answer<Result<PublishAck, Error>>),
    Commit(Box<Commit>, Answer<Result<(), CommitError>>),
    /// Answers `None` if the durable is gone.
    IsSettled {
        origin: String,
        sequence: u64,
        answer: Answer<Option<bool>>,
    },
    /// Answers `None` if the durable is gone.
    Backlog {
        origin: String,
        answer: Answer<Option<Backlog>>,
    },
    Settle {
        durable: DurableId,
        sequence: u64,
        count: u32,
        how: Settle,
    },
    Taken {
        durable: DurableId,
        subscriber: u64,
        sequence: u64,
        /// What it weighs.
        bytes: usize,
        at: Instant,
    },
    EnsureStream(StreamSpec, Answer<Result<StreamInfo, Error>>),
    EnsureDurable(ConsumerSpec, Answer<Result<Arc<Origin>, Error>>),
    FindDurable {
        stream: String,
        durable: String,
        answer: Answer<Option<Arc<Origin>>>,
    },
    /// Answers `None` if the durable is gone.
    Subscribe {
        origin: String,
        subscriber: u64,
        credit: usize,
        wanted: Option<usize>,
        arrivals: UnboundedSender<Arrival>,
        answer: Answer<Option<DurableId>>,
    },
    /// How many more a subscriber wants. By the answer, all that was on its way to it is there.
    Want {
        durable: DurableId,
        subscriber: u64,
        count: usize,
        answer: Answer<()>,
    },
    Unsubscribe {
        subscriber: u64,
        answer: Option<Answer<()>>,
    },
    DeleteStream(String, Answer<Result<(), Error>>),
    /// Answers whether it was there.
    DeleteMessage {
        stream: String,
        sequence: u64,
        answer: Answer<Result<bool, Error>>,
    },
    DeleteDurable {
        stream: String,
        durable: String,
        answer: Answer<Result<(), Error>>,
    },
    /// Without a value it is deleted.
    PutKey {
        bucket: String,
        key: String,
        value: Option<Bytes>,
        expected: Option<u64>,
        answer: Answer<Result<u64, Error>>,
    },
    /// Everything before it is synced.
    Flush(Answer<()>),
}

/// A message that was checked, with all its headers.
pub(super) struct Store {
    pub(super) message: Message,
    pub(super) id: Option<String>,
    pub(super) expected: Option<u64>,
}

/// The end of an event.
#[derive(Clone)]
pub(super) struct Commit {
    pub(super) origin: Arc<Origin>,
    pub(super) sequence: u64,
    pub(super) point: Point,
    /// Of the cell, when the run began.
    pub(super) revision: u64,
    pub(super) writes: Vec<Write>,
    /// Other cells, as they were read and with what is written to them.
    pub(super) others: Vec<OtherCell>,
    /// Checked, with all their headers.
    pub(super) effects: Vec<Message>,
    /// Likewise.
    pub(super) timers: Vec<Timer>,
    pub(super) cancels: Vec<String>,
    /// Of the cell, when the run began.
    pub(super) cell_bytes: usize,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settle {
    Ack,
    Nak(Option<Duration>),
    InProgress,
}

impl Op {
    /// About how much it adds to a group, in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Op::Store(store, _) => weight(&store.message),
            Op::Commit(commit, _) => {
                let later = commit.timers.iter().map(|t| &t.message);
                let messages = commit.effects.iter().chain(later).map(weight).sum::<usize>();
                let written = commit.others.iter().filter(|other| !other.writes.is_empty());
                let writes = commit.writes.iter().chain(written.clone().flat_map(|other| &other.writes));
                let writes = writes.map(|write| match write {
                    Write::Put { key, value } => key.len() + value.len(),
                    Write::Delete { key } => key.len(),
                });
                // A cell is written whole.
                let others = written.map(|other| other.state.bytes());
                messages + writes.sum::<usize>() + commit.cell_bytes + others.sum::<usize>()
            }
            Op::PutKey { value, .. } => value.as_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }
}
