//! The embedded bus: durable in one directory, for one process. What a server would do for many hosts, one thread does
//! here: it writes ([`writer`]), everybody else reads.

mod backend;
mod backlog;
mod bucket;
mod cells;
mod deliveries;
mod directory;
mod durable;
mod fault;
mod handle;
mod ids;
mod inboxes;
mod op;
mod outcome;
mod outstanding;
mod reader;
mod rows;
mod settled;
mod shared;
mod state;
mod stream;
mod tables;
#[cfg(debug_assertions)]
mod unsynced;
mod writer;

use std::{io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    api::{
        Bucket, Bus, CellState, Change, Committed, Connection, ConsumerSpec, Deliveries, Delivery, Listener,
        Message, Opened, Origin, OtherCell, Point, Publish, PublishAck, Reader, Snapshot, Start, Stored,
        StreamInfo, StreamSpec,
    },
    backlog::Backlog,
    change,
    error::{CommitError, Error},
    names,
    outgoing::{self, Added, outgoing},
    subject,
};
use directory::Directory;
use fault::Fault;
use handle::Handle;
use op::{Commit, Op, Store};
use rows::CellRow;

/// Where the bus keeps its data.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Created if it is missing. One process at a time.
    pub directory: PathBuf,
}

/// What the data is stored on; a file, unless a test brings something that fails.
pub trait Storage: Send + Sync + 'static {
    /// Opened at the `first` start, when it is made if it is missing, and again after a failure, when it has to be there.
    fn open(&self, first: bool) -> io::Result<Box<dyn redb::StorageBackend>>;
    /// How large it is, in bytes. What is 0 is never compacted.
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }
    /// For messages.
    fn name(&self) -> String;
}

/// Opens the bus in its directory. Dropping everything that came from it closes it.
pub async fn open(config: LocalConfig) -> Result<Arc<dyn Bus>, Error> {
    let storage: Arc<dyn Storage> = Arc::new(Directory::take(&config.directory)?);
    #[cfg(debug_assertions)]
    let storage = unsynced::noted(storage);
    open_on(storage).await
}

/// The same on any storage.
pub async fn open_on(storage: Arc<dyn Storage>) -> Result<Arc<dyn Bus>, Error> {
    Ok(Arc::new(LocalBus { handle: Arc::new(Handle::open(storage).await?) }))
}

struct LocalBus {
    handle: Arc<Handle>,
}

impl LocalBus {
    fn named(&self, stream: &str) -> Result<stream::Facts, Error> {
        let named = self.handle.shared.named(stream);
        named.ok_or_else(|| Error::Gone { what: "stream", name: stream.to_owned() })
    }

    async fn is_settled(&self, delivery: &Delivery) -> Result<bool, Error> {
        let (origin, sequence) = (&delivery.origin, delivery.stored.sequence);
        loop {
            let id = origin.id.clone();
            match self.handle.ask(|answer| Op::IsSettled { origin: id, sequence, answer }).await {
                Ok(Some(settled)) => return Ok(settled),
                Ok(None) => {
                    let name = format!("{}/{}", origin.stream, origin.durable);
                    return Err(Error::Gone { what: "durable", name });
                }
                Err(_) => self.handle.shared.up().await?,
            }
        }
    }

    async fn row(&self, space: &str, cell: &str) -> Result<CellRow, Error> {
        names::check_cell(space, cell)?;
        loop {
            match self.handle.shared.view().and_then(|view| view.cell(space, cell)) {
                Ok(row) => return Ok(row.unwrap_or_default()),
                Err(Fault::Damaged(reason)) => {
                    return Err(Error::Unreadable { subject: format!("cell {space}/{cell}"), reason });
                }
                Err(_) => self.handle.shared.up().await?,
            }
        }
    }
}

#[async_trait]
impl Bus for LocalBus {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.handle.shared.connection()
    }

    async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamInfo, Error> {
        names::check_stream(spec)?;
        self.handle.ask(|answer| Op::EnsureStream(spec.clone(), answer)).await?
    }

    async fn covering(&self, filter: &str) -> Result<Option<StreamInfo>, Error> {
        subject::check_filter(filter)?;
        Ok(self.handle.shared.covering(filter).map(|facts| (*facts.info).clone()))
    }

    async fn stores(&self, subject: &str) -> Result<bool, Error> {
        subject::check_filter(subject)?;
        Ok(self.handle.shared.covering(subject).is_some())
    }

    async fn ensure_consumer(&self, spec: &ConsumerSpec) -> Result<Arc<Origin>, Error> {
        names::check_durable(spec)?;
        self.handle.ask(|answer| Op::EnsureDurable(spec.clone(), answer)).await?
    }

    async fn durable(&self, stream: &str, name: &str) -> Result<Option<Arc<Origin>>, Error> {
        let (stream, durable) = (stream.to_owned(), name.to_owned());
        self.handle.ask(|answer| Op::FindDurable { stream, durable, answer }).await
    }

    async fn deliveries(&self, origin: &Arc<Origin>, buffer: usize) -> Result<Box<dyn Deliveries>, Error> {
        Ok(Box::new(deliveries::Local::start(self.handle.clone(), origin, buffer).await?))
    }

    async fn backlog(&self, origin: &Arc<Origin>) -> Result<Backlog, Error> {
        let id = origin.id.clone();
        let found = self.handle.ask(|answer| Op::Backlog { origin: id, answer }).await?;
        let name = || format!("{}/{}", origin.stream, origin.durable);
        found.ok_or_else(|| Error::Gone { what: "durable", name: name() })
    }

    async fn publish(&self, message: Message, how: Publish) -> Result<PublishAck, Error> {
        outgoing::check_subject(&message.subject)?;
        let Publish { message_id: id, expected_last_subject_sequence: expected } = how;
        let headers = outgoing(&message, Added { cause: None, message_id: id.as_deref(), expected })?;
        let store = Store { message: Message { headers, ..message }, id, expected };
        self.handle.ask(|answer| Op::Store(store, answer)).await?
    }

    async fn last(&self, subject: &str) -> Result<Option<Stored>, Error> {
        subject::check(subject)?;
        let stream = self.handle.shared.covering(subject);
        let stream = stream.ok_or_else(|| Error::NoStream { subject: subject.to_owned() })?;
        Ok(self.handle.shared.view()?.last(stream.id, subject)?)
    }

    fn max_commit(&self) -> usize {
        state::MAX_COMMIT
    }

    /// An event that came once has not settled, as far as is known; the commit knows for sure.
    async fn open(&self, delivery: &Delivery, point: &Point) -> Result<Opened, Error> {
        if delivery.count > 1 && self.is_settled(delivery).await? {
            return Ok(Opened::Settled);
        }
        let mut snapshot =
            Snapshot { point: point.clone(), state: CellState::default(), revision: 0, notes: None };
        if let Point::Cell { space, cell } = point {
            let row = self.row(space, cell).await?;
            snapshot.revision = row.revision;
            snapshot.state.entries = row.entries;
        }
        Ok(Opened::Fresh(snapshot))
    }

    async fn cell(&self, space: &str, cell: &str) -> Result<OtherCell, Error> {
        let row = self.row(space, cell).await?;
        Ok(OtherCell {
            space: space.to_owned(),
            cell: cell.to_owned(),
            state: CellState { entries: row.entries },
            writes: Vec::new(),
            revision: row.revision,
            notes: None,
        })
    }

    async fn commit(
        &self,
        delivery: &Delivery,
        base: Snapshot,
        change: Change,
    ) -> Result<Committed, CommitError> {
        change::check(&base.point, &change)?;
        #[cfg(debug_assertions)]
        crate::broken::ack_first(delivery).await;
        let delivered = delivery.id();
        let id = change.cause(delivered).to_owned();
        let ids: Vec<String> = (0..change.effects.len()).map(|n| change.id(delivered, n)).collect();
        let unfit = |e: Error| CommitError::Unfit(e.to_string());
        let mut effects = Vec::with_capacity(change.effects.len());
        for (effect, message_id) in change.effects.into_iter().zip(ids) {
            outgoing::check_subject(&effect.subject).map_err(unfit)?;
            let added = Added { cause: Some(&id), message_id: Some(&message_id), expected: None };
            let headers = outgoing(&effect, added).map_err(unfit)?;
            effects.push(Message { headers, ..effect });
        }
        let mut timers = change.timers;
        for timer in &mut timers {
            outgoing::check_subject(&timer.message.subject).map_err(unfit)?;
            let added = Added { cause: Some(&id), message_id: Some(&timer.id), expected: None };
            timer.message.headers = outgoing(&timer.message, added).map_err(unfit)?;
        }
        let commit = Commit {
            origin: delivery.origin.clone(),
            sequence: delivery.stored.sequence,
            point: base.point,
            revision: base.revision,
            writes: change.writes,
            others: change.others,
            effects,
            timers,
            cancels: change.cancels,
            cell_bytes: base.state.bytes(),
        };
        let mut unknown = false;
        loop {
            let attempt = Box::new(commit.clone());
            match self.handle.ask(|answer| Op::Commit(attempt, answer)).await {
                // By the attempt before, whose answer was lost with the disk.
                Ok(Err(CommitError::Settled)) if unknown => return Ok(Committed::default()),
                Ok(committed) => return committed.map(|()| Committed::default()),
                // Whether it happened is unknown: once the data is in reach again, the same commit tells.
                Err(_) => {
                    unknown = true;
                    self.handle.shared.up().await?;
                }
            }
        }
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>, Error> {
        Ok(self.handle.shared.streams().iter().map(|facts| (*facts.info).clone()).collect())
    }

    async fn read(&self, stream: &str, filter: &str, start: Start) -> Result<Box<dyn Reader>, Error> {
        subject::check_filter(filter)?;
        let facts = self.named(stream)?;
        Ok(Box::new(reader::LocalReader::start(self.handle.clone(), facts, filter, start)?))
    }

    async fn message(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, Error> {
        let facts = self.named(stream)?;
        Ok(self.handle.shared.view()?.message(facts.id, sequence)?)
    }

    async fn delete_message(&self, stream: &str, sequence: u64) -> Result<bool, Error> {
        let stream = stream.to_owned();
        self.handle.ask(|answer| Op::DeleteMessage { stream, sequence, answer }).await?
    }

    async fn listen(&self, filter: &str) -> Result<Box<dyn Listener>, Error> {
        subject::check_filter(filter)?;
        Ok(Box::new(reader::LocalListener::start(self.handle.clone(), filter)))
    }

    async fn delete_stream(&self, name: &str) -> Result<(), Error> {
        self.handle.ask(|answer| Op::DeleteStream(name.to_owned(), answer)).await?
    }

    async fn delete_durable(&self, stream: &str, durable: &str) -> Result<(), Error> {
        let (stream, durable) = (stream.to_owned(), durable.to_owned());
        self.handle.ask(|answer| Op::DeleteDurable { stream, durable, answer }).await?
    }

    async fn bucket(&self, name: &str) -> Result<Arc<dyn Bucket>, Error> {
        names::check_bucket(name)?;
        Ok(Arc::new(bucket::LocalBucket::new(self.handle.clone(), name)))
    }

    async fn flush(&self) {
        if let Err(e) = self.handle.ask(Op::Flush).await {
            tracing::warn!(%e, "not flushed");
        }
    }

    async fn advise(&self, subject: &str, data: Bytes) {
        let message = Message { subject: subject.to_owned(), headers: Vec::new(), data };
        self.handle.shared.say(std::iter::once(&message));
    }
}
