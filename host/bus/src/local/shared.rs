//! What the writer and everybody else see together: the database to read from, the streams there are, who listens.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, watch};

use super::{fault::Fault, stream::Facts, tables::View};
use crate::{
    api::{Connection, Message, Stored},
    error::Error,
    subject,
};

/// Messages that a listener may be behind.
const BEHIND: usize = 16_384;

pub(super) struct Shared {
    /// `None` while the storage fails.
    database: RwLock<Option<Arc<Database>>>,
    streams: RwLock<Arc<Vec<Facts>>>,
    /// Counts the groups: whoever waits for something looks after each.
    groups: watch::Sender<u64>,
    /// Counts the groups that wrote keys.
    keys: watch::Sender<u64>,
    connection: watch::Sender<Connection>,
    listeners: Mutex<Vec<Listening>>,
}

struct Listening {
    filter: String,
    messages: mpsc::Sender<Message>,
    missed: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            database: RwLock::default(),
            streams: RwLock::default(),
            groups: watch::Sender::new(0),
            keys: watch::Sender::new(0),
            connection: watch::Sender::new(Connection::Down { reason: "not open yet".to_owned() }),
            listeners: Mutex::default(),
        }
    }

    pub(super) fn open(&self, database: Database, streams: Vec<Facts>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        self.update(streams);
        self.connection.send_replace(Connection::Up);
    }

    pub(super) fn fail(&self, down: Connection) {
        self.connection.send_replace(down);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn close(&self) {
        self.fail(Connection::Down { reason: "the embedded bus is closed".to_owned() });
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn database(&self) -> Result<Arc<Database>, Fault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner).clone();
        database.ok_or(Fault::Closed)
    }

    /// The state after the last group.
    pub(super) fn view(&self) -> Result<View, Fault> {
        Ok(View(self.database()?.begin_read()?))
    }

    /// Makes the file smaller, unless somebody is reading.
    pub(super) fn compact(&self) -> Result<bool, Fault> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_mut().and_then(Arc::get_mut) else { return Ok(false) };
        match database.compact() {
            Ok(_) => Ok(true),
            Err(redb::CompactionError::TransactionInProgress) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn update(&self, streams: Vec<Facts>) {
        *self.streams.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(streams);
        self.groups.send_modify(|n| *n += 1);
    }

    pub(super) fn streams(&self) -> Arc<Vec<Facts>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn covering(&self, filter: &str) -> Option<Facts> {
        self.streams().iter().find(|s| s.covers(filter)).cloned()
    }

    pub(super) fn named(&self, name: &str) -> Option<Facts> {
        self.streams().iter().find(|s| s.info.name == name).cloned()
    }

    pub(super) fn groups(&self) -> watch::Receiver<u64> {
        self.groups.subscribe()
    }

    pub(super) fn keys_changed(&self) {
        self.keys.send_modify(|n| *n += 1);
    }

    pub(super) fn keys(&self) -> watch::Receiver<u64> {
        self.keys.subscribe()
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    /// Why nothing is answered.
    pub(super) fn down(&self) -> Error {
        match &*self.connection.borrow() {
            Connection::Down { reason } => Error::Unavailable(reason.clone()),
            Connection::Up => Error::Unavailable("the data could not be written; it works again".to_owned()),
        }
    }

    /// Everything under `filter` from now on, and a count of what was missed for want of room.
    pub(super) fn listen(&self, filter: &str) -> (mpsc::Receiver<Message>, Arc<AtomicU64>) {
        let (messages, receiver) = mpsc::channel(BEHIND);
        let missed = Arc::new(AtomicU64::new(0));
        let listening = Listening { filter: filter.to_owned(), messages, missed: missed.clone() };
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listening);
        (receiver, missed)
    }

    pub(super) fn heard(&self, stored: &[Arc<Stored>]) {
        if !stored.is_empty() {
            self.say(stored.iter().map(|s| &s.message));
        }
    }

    pub(super) fn say<'m>(&self, messages: impl Iterator<Item = &'m Message>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        listeners.retain(|l| !l.messages.is_closed());
        for message in messages {
            for listener in listeners.iter().filter(|l| subject::covers(&l.filter, &message.subject)) {
                if listener.messages.try_send(message.clone()).is_err() {
                    listener.missed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
