//! What the writer and everybody else see together: the database to read from, the streams there are, who listens.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, watch};

use super::{fault::Fault, stream::Facts, tables::View};
use crate::{
    api::{Connection, Message, Stored},
    error::Error,
    subject,
};

/// Messages that a listener may be behind, and bytes.
const BEHIND: usize = 16_384;
const BEHIND_BYTES: usize = 16 * 1024 * 1024;
/// Of whatever was asked for when the data went out of reach.
const UNKNOWN: &str = "whether what was asked for happened is not known";

pub(super) struct Shared {
    /// `None` while the storage fails.
    database: RwLock<Option<Arc<Database>>>,
    streams: RwLock<Arc<Vec<Facts>>>,
    /// Counts the groups: whoever waits for something looks after each.
    groups: watch::Sender<u64>,
    /// Counts the groups that wrote keys.
    keys: watch::Sender<u64>,
    connection: watch::Sender<Connection>,
    /// For good.
    closed: AtomicBool,
    listeners: Mutex<Vec<Listening>>,
}

struct Listening {
    filter: String,
    messages: mpsc::Sender<Message>,
    account: Arc<Account>,
}

/// How far a listener is behind.
#[derive(Debug, Default)]
pub(super) struct Account {
    waiting: AtomicUsize,
    missed: AtomicU64,
}

impl Account {
    /// What was missed since the last time.
    pub(super) fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }

    pub(super) fn taken(&self, message: &Message) {
        self.waiting.fetch_sub(message.data.len(), Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            database: RwLock::default(),
            streams: RwLock::default(),
            groups: watch::Sender::new(0),
            keys: watch::Sender::new(0),
            connection: watch::Sender::new(Connection::Down { reason: "not open yet".to_owned() }),
            closed: AtomicBool::new(false),
            listeners: Mutex::default(),
        }
    }

    pub(super) fn open(&self, database: Database, streams: Vec<Facts>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        self.update(streams);
        // A write whose answer was lost may have happened.
        self.keys_changed();
        self.connection.send_replace(Connection::Up);
    }

    pub(super) fn fail(&self, down: Connection) {
        self.connection.send_replace(down);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
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

    /// Waits until the data is in reach; an error once it never will be.
    pub(super) async fn up(&self) -> Result<(), Error> {
        let is_closed = || self.closed.load(Ordering::Relaxed);
        let mut connection = self.connection.subscribe();
        let failed = connection.wait_for(|c| *c == Connection::Up || is_closed()).await.is_err();
        if failed || is_closed() { Err(self.down()) } else { Ok(()) }
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
            Connection::Down { reason } => Error::Unavailable(format!("{reason} ({UNKNOWN})")),
            Connection::Up => {
                Error::Unavailable(format!("the data could not be written; it works again ({UNKNOWN})"))
            }
        }
    }

    /// Everything under `filter` from now on, and a count of what was missed for want of room.
    pub(super) fn listen(&self, filter: &str) -> (mpsc::Receiver<Message>, Arc<Account>) {
        let (messages, receiver) = mpsc::channel(BEHIND);
        let account = Arc::new(Account::default());
        let listening = Listening { filter: filter.to_owned(), messages, account: account.clone() };
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listening);
        (receiver, account)
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
                let account = &listener.account;
                let waiting = account.waiting.fetch_add(message.data.len(), Ordering::Relaxed);
                if waiting > BEHIND_BYTES || listener.messages.try_send(message.clone()).is_err() {
                    account.taken(message);
                    account.missed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
