//! The bus as the daemon sees it: one trait, whatever stores the messages. The conformance suite in `tests/`
//! is its definition; this file states the promises in words.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    backlog::Backlog,
    error::{CommitError, Error},
};

pub use crate::commit::*;

pub type Headers = Vec<(String, String)>;

/// Something to store under a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    /// Read back sorted by name; the values of a repeated name keep their order. Of the `Nats-*` names, which are
    /// instructions to the bus, a caller may set only `Nats-TTL`.
    pub headers: Headers,
    pub data: Bytes,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub message: Message,
    /// Of the stream; also the message's revision where a subject keeps one message.
    pub sequence: u64,
    /// Nanoseconds since the epoch, by the bus's clock.
    pub timestamp: u64,
}

/// Conditions and identity of one publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publish {
    /// Within the stream's duplicate window a second message with this id is acknowledged and not stored.
    pub message_id: Option<String>,
    /// Store only if the subject's last message has this sequence; 0: only if the subject has none.
    pub expected_last_subject_sequence: Option<u64>,
}

/// The bus has stored a message (or had it already).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishAck {
    pub stream: String,
    pub sequence: u64,
    pub duplicate: bool,
}

/// A stream to create if no stream covers its subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    pub name: String,
    pub subjects: Vec<String>,
    pub max_age: Option<Duration>,
    pub max_messages: Option<u64>,
    pub max_bytes: Option<u64>,
    /// `None`: the bus's default, two minutes.
    pub duplicate_window: Option<Duration>,
}

/// A stream that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    pub name: String,
    pub subjects: Vec<String>,
    /// Nanoseconds since the epoch.
    pub created: u64,
    pub duplicate_window: Duration,
    /// Of one message, headers included.
    pub max_message_size: Option<u64>,
}

/// A durable pull consumer with explicit acks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    pub stream: String,
    pub durable: String,
    pub filter: String,
    /// A delivery without ack, nak or heartbeat for so long is delivered again.
    pub ack_wait: Duration,
    /// `None`: no limit, which is what dispatch uses.
    pub max_deliver: Option<u32>,
    pub max_ack_pending: u32,
    /// One host at a time takes deliveries, and begins with those that another left, once it holds all of them. For
    /// events whose order counts.
    pub ordered: bool,
}

/// A durable that exists, and the identity of the events that come from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Hash of names and creation times of stream and durable, in hex: a stream that was deleted and made anew
    /// counts from 1 again, and must not be mistaken for the old one.
    pub id: String,
    pub stream: String,
    /// Nanoseconds since the epoch.
    pub stream_created: u64,
    pub durable: String,
    /// The same of the durable: one that was deleted and made anew hands out again what it handed out before.
    pub durable_created: u64,
    pub filter: String,
    pub ack_wait: Duration,
    pub ordered: bool,
}

impl Origin {
    /// The `id` of what comes from a durable.
    pub(crate) fn identity(stream: &str, stream_created: u64, durable: &str, durable_created: u64) -> String {
        let hash = Sha256::digest(format!("{stream}\n{stream_created}\n{durable}\n{durable_created}"));
        hash.iter().take(12).map(|b| format!("{b:02x}")).collect()
    }
}

/// One event, taken from a durable and not yet settled. Dropping it settles nothing: it comes again after the
/// ack wait.
pub struct Delivery {
    pub origin: Arc<Origin>,
    pub stored: Stored,
    /// From 1; a hint: a bus that was killed may count from 1 again.
    pub count: u32,
    /// A hint: how many more its durable had that were delivered to nobody yet.
    pub behind: u64,
    /// When it came to this process.
    pub arrived: Instant,
    id: String,
    settle: Box<dyn Settle>,
}

impl Delivery {
    /// One that has just come.
    pub(crate) fn new(
        origin: Arc<Origin>,
        stored: Stored,
        count: u32,
        behind: u64,
        settle: Box<dyn Settle>,
    ) -> Delivery {
        let id = format!("{}.{}", origin.id, stored.sequence);
        Delivery { origin, stored, count, behind, arrived: Instant::now(), id, settle }
    }

    /// `<origin>.<sequence>`: unique, the same on every delivery.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Done: never deliver it again. Fire and forget, as the server's own protocol is.
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle.ack().await
    }

    /// Never deliver it again, although it is not done: for whoever has given it up.
    pub async fn term(&self) -> Result<(), Error> {
        self.settle.term().await
    }

    /// Not run: deliver it again, after `delay`.
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.settle.nak(delay).await
    }

    /// Still at it: the ack wait begins anew.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.settle.in_progress().await
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id())
            .field("subject", &self.stored.message.subject)
            .finish()
    }
}

/// How a bus settles a delivery of its own.
#[async_trait]
pub(crate) trait Settle: Send + Sync {
    async fn ack(&self) -> Result<(), Error>;
    async fn term(&self) -> Result<(), Error>;
    async fn nak(&self, delay: Option<Duration>) -> Result<(), Error>;
    async fn in_progress(&self) -> Result<(), Error>;
}

/// The deliveries of a durable, one after another, in stream order for first deliveries. It never ends by itself:
/// a lost connection is waited out, and only a durable or stream that is gone is an error (the caller ensures it
/// anew).
#[async_trait]
pub trait Deliveries: Send {
    async fn next(&mut self) -> Result<Delivery, Error>;
    /// From now on `next` gives this many more, until it is said again, and holds nothing beyond: what has been fetched and
    /// is not wanted is handed back, so that another host gets it at once. Before it is said for the first time there is
    /// no such limit. Where the durable is ordered it says nothing: who has the turn has all.
    async fn want(&mut self, count: usize);
    /// Hands back what was fetched and not yet taken, so that another host gets it at once.
    async fn close(&mut self);
}

/// State of the connection, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    Up,
    Down { reason: String },
}

/// Events, subjects, streams, durables, commit points and key-value buckets.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// `nats` or `local`.
    fn kind(&self) -> &'static str;

    /// Whether other hosts may take deliveries of the same durables.
    fn is_shared(&self) -> bool;

    /// Follows the connection.
    fn connection(&self) -> watch::Receiver<Connection>;

    /// The stream that covers `spec`'s subjects; created if none does. An existing stream is used as it is: its
    /// limits are its owner's. A stream that covers only a part of the subjects, or has the name but not the
    /// subjects, is an error that shows both sides.
    async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamInfo, Error>;

    /// The stream that stores `subject`, which may be a filter with wildcards. Cached for some seconds.
    async fn covering(&self, subject: &str) -> Result<Option<StreamInfo>, Error>;

    /// Whether there is such a stream.
    async fn stores(&self, subject: &str) -> Result<bool, Error> {
        Ok(self.covering(subject).await?.is_some())
    }

    /// The durable; created if it is missing, delivering everything its stream holds. One that exists with other
    /// settings is an error that shows both sides.
    async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<Arc<Origin>, Error>;

    /// The durable, if it is there. Makes nothing: for whoever only looks.
    async fn durable(&self, stream: &str, name: &str) -> Result<Option<Arc<Origin>>, Error>;

    /// Takes deliveries; at most `buffer` are fetched ahead of the caller. With 0 those that it wants are, and none before it says
    /// how many.
    async fn deliveries(&self, origin: &Arc<Origin>, buffer: usize) -> Result<Box<dyn Deliveries>, Error>;

    /// How far behind the durable is, and what its stream will keep for it. For a look now and then.
    async fn backlog(&self, origin: &Arc<Origin>) -> Result<Backlog, Error>;

    /// Stores a message. `Err(NoStream)` if none covers the subject: it is never lost silently.
    async fn publish(&self, message: Message, how: Publish) -> Result<PublishAck, Error>;

    /// The newest message of `subject`, read from the stream's leader.
    async fn last(&self, subject: &str) -> Result<Option<Stored>, Error>;

    /// What one commit may weigh in bytes: effects with their headers, and the cell's state.
    fn max_commit(&self) -> usize;

    /// Before a run: has this event committed? Applies what an earlier run left, of this event and of the cell. While
    /// the bus is out of reach it waits.
    async fn open(&self, delivery: &Delivery, point: &Point) -> Result<Opened, Error>;

    /// Another cell than the event's own, for [`Change::others`]. What earlier events left unapplied there has been applied.
    /// Cells are read one by one: whether they were so at one time, the commit tells. While the bus is out of reach it waits.
    async fn cell(&self, space: &str, cell: &str) -> Result<OtherCell, Error>;

    /// The same for whoever commits nothing: what earlier events left unapplied is no business of theirs, and not waited for.
    async fn peek(&self, space: &str, cell: &str) -> Result<OtherCell, Error> {
        self.cell(space, cell).await
    }

    /// Whether a cell that a run was based on has changed since: then it may have seen what never was at one time, and nothing
    /// follows from its failure.
    async fn is_stale(
        &self,
        delivery: &Delivery,
        base: &Snapshot,
        others: &[OtherCell],
    ) -> Result<bool, Error> {
        for other in others {
            if !other.is_still(&self.cell(&other.space, &other.cell).await?) {
                return Ok(true);
            }
        }
        match self.open(delivery, &base.point).await? {
            Opened::Settled => Ok(true),
            Opened::Fresh(now) => Ok(now.revision != base.revision),
        }
    }

    /// Commits, applies and acks, in this order. Returns only when the outcome is known: while the bus is out of reach
    /// it waits. Dropping the future is as a crash: the next delivery finds out.
    async fn commit(
        &self,
        delivery: &Delivery,
        base: Snapshot,
        change: Change,
    ) -> Result<Committed, CommitError>;

    /// Every stream there is, sorted by name; our own among them, but none of a bucket.
    async fn streams(&self) -> Result<Vec<StreamInfo>, Error>;

    /// Reads what `stream` stores under `filter`, in its order. Consumes nothing, leaves nothing behind.
    async fn read(&self, stream: &str, filter: &str, start: Start) -> Result<Box<dyn Reader>, Error>;

    /// The message with this sequence, read from the stream's leader; `Err(Gone)` if there is no such stream.
    async fn message(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error>;

    /// Deletes one message; false if it is not there (any more). Of several who delete it, one is told that it did. A
    /// durable that has not delivered it passes over it. `Err(Gone)` if there is no such stream.
    async fn delete_message(&self, stream: &str, sequence: u64) -> Result<bool, Error>;

    /// Hears what is published under `filter` from now on, stored or not. What comes while the connection is down, or
    /// faster than it is taken, is missed: whoever must not miss anything reads.
    async fn listen(&self, filter: &str) -> Result<Box<dyn Listener>, Error>;

    /// Deletes a stream with all that it holds and its durables; `Err(Gone)` if there is none, `Err(Refused)` for our own.
    async fn delete_stream(&self, name: &str) -> Result<(), Error>;

    /// Deletes a durable; one that is made anew begins with all that its stream holds.
    async fn delete_durable(&self, stream: &str, durable: &str) -> Result<(), Error>;

    /// A key-value bucket, created if it is missing.
    async fn bucket(&self, name: &str) -> Result<Arc<dyn Bucket>, Error>;

    /// Waits until what was sent without an answer (acks) has left this process; before a clean stop.
    async fn flush(&self);

    /// Tells whoever listens right now; stored nowhere, lost without a listener.
    async fn advise(&self, subject: &str, data: Bytes);
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first message of this sequence or a later one; 0 and 1: with all there is.
    Sequence(u64),
    /// With the first message stored at this time or later, in nanoseconds since the epoch.
    Time(u64),
    /// With what is stored from now on.
    End,
}

/// Stored messages one after another. Over a lost connection it goes on where it was.
#[async_trait]
pub trait Reader: Send {
    /// Waits for the next.
    async fn next(&mut self) -> Result<Stored, Error>;
    /// The next, or `None` if all that is stored by now has been read.
    async fn stored(&mut self) -> Result<Option<Stored>, Error>;
}

/// Messages as they are published.
#[async_trait]
pub trait Listener: Send {
    async fn next(&mut self) -> Result<Message, Error>;
}

/// One value of a bucket. `value` is `None` where the key was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Option<Bytes>,
    pub revision: u64,
}

/// Keys with one value each, revisions and watching.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// `None` if the key was never set; a deleted key is an entry without value.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;
    /// Sets the key if its revision is `expected` (0: it was never set or is deleted). Returns the new revision.
    async fn put(&self, key: &str, value: Bytes, expected: Option<u64>) -> Result<u64, Error>;
    async fn delete(&self, key: &str, expected: Option<u64>) -> Result<(), Error>;
    /// Sorted, without the deleted.
    async fn keys(&self) -> Result<Vec<String>, Error>;
    /// First what is there, then each change, in order, over reconnections.
    async fn watch(&self) -> Result<Box<dyn Watch>, Error>;
}

#[async_trait]
pub trait Watch: Send {
    async fn next(&mut self) -> Result<Entry, Error>;
}
