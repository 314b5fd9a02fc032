//! The one thread that writes. What waits for it becomes a group: one transaction, one sync. Only then is anything
//! answered, delivered or heard; a group that fails is as if it had never been asked for.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redb::Database;
use tokio::time::Instant;

use super::{
    Storage,
    backend::Backend,
    fault::Fault,
    op::Op,
    shared::Shared,
    state::{Now, Outcome, State},
    tables::Tables,
};
use crate::api::Connection;

/// A group ends with what waits when it begins, or with so much.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Of the store's cache of pages.
const CACHE: usize = 64 * 1024 * 1024;
/// Between attempts while the storage fails.
const RETRY: Duration = Duration::from_millis(250);
/// How often a writer with nothing to do looks around.
const TICK: Duration = Duration::from_secs(10);
/// A file is made smaller when it is at least so large, and so many times as large as what it holds.
const COMPACT_FROM: u64 = 64 * 1024 * 1024;
const COMPACT_RATIO: u64 = 4;
/// A file over this size is written so that it opens at once after a crash; below, that takes a second, and each commit
/// costs less.
const QUICK_REPAIR: u64 = 1024 * 1024 * 1024;
/// How often the file's size is looked at, in groups.
const LOOK: u32 = 1024;

pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    ops: Receiver<Op>,
    state: State,
    compacted_at: Option<u64>,
    quick_repair: bool,
    /// Groups until the file's size is looked at.
    look: u32,
}

impl Writer {
    /// Opens the data.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        shared: Arc<Shared>,
        ops: Receiver<Op>,
    ) -> Result<Writer, Fault> {
        let mut writer = Writer {
            storage,
            shared,
            ops,
            state: State::default(),
            compacted_at: None,
            quick_repair: false,
            look: 0,
        };
        writer.load()?;
        Ok(writer)
    }

    fn load(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(Backend::new(self.storage.open()?)?)?;
        let tx = database.begin_write()?;
        let mut tables = Tables::open(&tx)?;
        self.state = State::load(&mut tables, now())?;
        // A disk that can be read and not written is not there yet.
        tables.count_opening()?;
        drop(tables);
        tx.commit()?;
        self.shared.open(database, self.state.facts());
        tracing::debug!(data = self.storage.name(), took = ?began.elapsed(), "the embedded bus is open");
        Ok(())
    }

    /// Until nobody is left to ask for anything.
    pub(super) fn run(mut self) {
        let mut idle = Some(Duration::ZERO);
        loop {
            let wait = idle.unwrap_or(TICK).min(TICK);
            let first = match self.ops.recv_timeout(wait) {
                Ok(op) => Some(op),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_none() && wait == TICK {
                self.compact();
            }
            match self.group(first) {
                Ok(next) => idle = next,
                Err(fault) => {
                    if !self.recover(&fault) {
                        break;
                    }
                    idle = Some(Duration::ZERO);
                }
            }
        }
        self.shared.close();
    }

    /// One transaction. Gives how long nothing will happen by itself.
    fn group(&mut self, first: Option<Op>) -> Result<Option<Duration>, Fault> {
        let mut outcome = Outcome::default();
        match self.write(first, &mut outcome) {
            Ok(idle) => {
                // Whoever listens only after an answer has come is not to hear what was answered.
                self.shared.heard(&outcome.stored);
                outcome.tell();
                Ok(idle)
            }
            Err(fault) => {
                self.shared.fail(Connection::Down { reason: self.reason(&fault) });
                Err(fault)
            }
        }
    }

    fn write(&mut self, first: Option<Op>, outcome: &mut Outcome) -> Result<Option<Duration>, Fault> {
        let database = self.shared.database()?;
        let mut tx = database.begin_write()?;
        tx.set_quick_repair(self.is_large());
        let mut tables = Tables::open(&tx)?;
        let now = now();
        let (mut count, mut bytes) = (0, 0);
        let mut next = first;
        while let Some(op) = next {
            count += 1;
            bytes += op.weight();
            self.state.run(&mut tables, op, now, outcome)?;
            next = if count < GROUP && bytes < GROUP_BYTES { self.ops.try_recv().ok() } else { None };
        }
        self.state.end_group(&mut tables, now, outcome)?;
        let idle = self.state.idle(&tables, now)?;
        let dirty = tables.dirty;
        drop(tables);
        if dirty {
            tx.commit()?;
            self.shared.update(self.state.facts());
            if outcome.keys {
                self.shared.keys_changed();
            }
        } else {
            tx.abort()?;
        }
        Ok(idle)
    }

    fn reason(&self, fault: &Fault) -> String {
        format!("the data in {} can't be written or read: {fault}", self.storage.name())
    }

    fn is_large(&mut self) -> bool {
        match self.look.checked_sub(1) {
            Some(left) => self.look = left,
            None => {
                self.look = LOOK;
                self.quick_repair = self.storage.size().unwrap_or_default() > QUICK_REPAIR;
            }
        }
        self.quick_repair
    }

    /// After a failure: what was in memory may be ahead of what is on disk, so all is read anew, as after a start. Until
    /// that works, whatever is asked for fails. Tells whether anybody is left to ask.
    fn recover(&mut self, fault: &Fault) -> bool {
        let mut reason = self.reason(fault);
        tracing::error!("{reason}; trying again until it can");
        loop {
            self.shared.fail(Connection::Down { reason: reason.clone() });
            // Whoever subscribed does so again.
            self.state = State::default();
            match self.load() {
                Ok(()) => {
                    tracing::info!("the data in {} is in reach again", self.storage.name());
                    return true;
                }
                Err(again) => {
                    reason = format!("the data in {} can't be opened: {again}", self.storage.name())
                }
            }
            let until = Instant::now() + RETRY;
            loop {
                // Answers that never come say no.
                match self.ops.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(op) => drop(op),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            }
        }
    }

    /// Gives the disk back what a burst took, when nothing is going on.
    fn compact(&mut self) {
        let size = self.storage.size().unwrap_or_default();
        if size < COMPACT_FROM || size / COMPACT_RATIO < self.state.size() || self.compacted_at == Some(size)
        {
            return;
        }
        let began = Instant::now();
        match self.shared.compact() {
            Ok(true) => {}
            // Somebody is reading: another time.
            Ok(false) => return,
            Err(e) => tracing::warn!("{} was not compacted: {e}", self.storage.name()),
        }
        let after = self.storage.size().unwrap_or_default();
        // Where that did not help, trying again would not.
        self.compacted_at = Some(after);
        tracing::info!(data = self.storage.name(), before = size, after, took = ?began.elapsed(), "compacted");
    }
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX), steady: Instant::now() }
}
