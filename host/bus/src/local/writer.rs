//! The one thread that writes. What waits for it becomes a group: one transaction, one sync. Only then is anything
//! answered, delivered or heard; a group that fails is as if it had never been asked for.

use std::{
    panic::AssertUnwindSafe,
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
    outcome::Outcome,
    shared::Shared,
    state::{Now, State},
    tables::Tables,
};
use crate::api::Connection;

/// A group ends with what waits when it begins, or with so much.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Of the store's cache of pages. It fills with the first burst and stays full, so it is as small as the store works well
/// with: what is written and read again soon; the rest is in the system's own cache.
const CACHE: usize = 16 * 1024 * 1024;
/// Between attempts while the storage fails; doubled as long as that does not help.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// A failure so soon after the last one is the same.
const SAME: Duration = Duration::from_secs(5);
/// How often a writer with nothing to do looks around.
const TICK: Duration = Duration::from_secs(10);
/// Groups in a row that leave operations waiting before events come again for want of a sign of life: it may be among them.
const BEHIND: u32 = 8;
/// A file is made smaller at the start when it is at least so large, and so many times as large as what it holds.
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
    /// Of the data that was opened first.
    identity: Option<u64>,
    recovered: Option<Instant>,
    pause: Duration,
    /// Groups in a row that left operations waiting.
    behind: u32,
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
            identity: None,
            recovered: None,
            pause: RETRY,
            behind: 0,
            quick_repair: false,
            look: 0,
        };
        writer.load()?;
        Ok(writer)
    }

    fn load(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        let first = self.identity.is_none();
        let storage = Backend::new(self.storage.open(first)?, first)?;
        let mut database = Database::builder().set_cache_size(CACHE).create_with_backend(storage)?;
        let mut tx = database.begin_write()?;
        self.look = 0;
        tx.set_quick_repair(self.is_large());
        let mut tables = Tables::open(&tx)?;
        self.state = State::load(&mut tables, now())?;
        let identity = tables.identity(random())?;
        if self.identity.is_some_and(|known| known != identity) {
            return Err(Fault::Exchanged);
        }
        // A disk that can be read and not written is not there yet.
        tables.count_opening()?;
        drop(tables);
        tx.commit()?;
        self.identity = Some(identity);
        if first {
            self.compact(&mut database)?;
        }
        self.shared.open(database, self.state.facts());
        tracing::debug!(data = self.storage.name(), took = ?began.elapsed(), "the embedded bus is open");
        Ok(())
    }

    /// Until nobody is left to ask for anything.
    pub(super) fn run(mut self) {
        let mut idle = Duration::ZERO;
        loop {
            let first = match self.ops.recv_timeout(idle.min(TICK)) {
                Ok(op) => Some(op),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Whatever has gone wrong in there, what is in memory is not used again.
            let group = std::panic::catch_unwind(AssertUnwindSafe(|| self.group(first)));
            match group.unwrap_or(Err(Fault::Panic)) {
                Ok(next) => idle = next.unwrap_or(TICK),
                Err(fault) => {
                    if !self.recover(&fault) {
                        break;
                    }
                    idle = Duration::ZERO;
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
        let (mut count, mut bytes, mut full) = (0, 0, false);
        let mut next = first;
        while let Some(op) = next {
            count += 1;
            bytes += op.weight();
            self.state.run(&mut tables, op, now, outcome)?;
            full = count >= GROUP || bytes >= GROUP_BYTES;
            next = if full { None } else { self.ops.try_recv().ok() };
        }
        self.behind = if full { self.behind + 1 } else { 0 };
        if self.behind.is_multiple_of(BEHIND) {
            self.state.wake(now);
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
        // Where it could be opened and failed at once, opening it again at once would not help.
        let again = self.recovered.is_some_and(|at| at.elapsed() < SAME);
        self.pause = if again { (self.pause * 2).min(LONGEST_RETRY) } else { RETRY };
        let mut pause = again;
        loop {
            self.shared.fail(Connection::Down { reason: reason.clone() });
            // Whoever subscribed does so again.
            self.state = State::default();
            if pause && !self.refuse_for(self.pause) {
                return false;
            }
            match self.load() {
                Ok(()) => {
                    tracing::info!("the data in {} is in reach again", self.storage.name());
                    self.recovered = Some(Instant::now());
                    return true;
                }
                Err(again) => {
                    reason = format!("the data in {} can't be opened: {again}", self.storage.name())
                }
            }
            pause = true;
        }
    }

    /// Answers that never come say no. Tells whether anybody is left to ask.
    fn refuse_for(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.ops.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(op) => drop(op),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Gives the disk back what a burst took. Only at the start: nobody can read meanwhile.
    fn compact(&self, database: &mut Database) -> Result<(), Fault> {
        let before = self.storage.size().unwrap_or_default();
        if before < COMPACT_FROM || before / COMPACT_RATIO < self.state.size() {
            return Ok(());
        }
        let began = Instant::now();
        database.compact()?;
        let after = self.storage.size().unwrap_or_default();
        tracing::info!(data = self.storage.name(), before, after, took = ?began.elapsed(), "compacted");
        Ok(())
    }
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX), steady: Instant::now() }
}

fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now().wall)
}
