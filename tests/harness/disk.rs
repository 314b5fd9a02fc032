//! A disk in memory that can lose its power and fail. What was synced stays; of what was written since, a power loss keeps
//! any part, torn anywhere, as real disks may.

use std::{
    io::{self, Error, ErrorKind},
    sync::{Arc, Mutex, MutexGuard},
};

use cofferdam_bus::local::Storage;
use redb::StorageBackend;
use tokio::sync::watch;

use crate::dice::Dice;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Bytes on a disk that says so; a bus writes in another way then.
const LARGE: u64 = 1 << 40;

/// What was done to a file.
#[derive(Debug)]
pub enum Change {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    /// Grown with zeros, or cut.
    Length(usize),
}

/// Which operations fail; what failed has changed nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failing {
    pub reads: bool,
    pub writes: bool,
    pub growth: bool,
    pub syncs: bool,
    /// The system's number of the error.
    pub error: i32,
}

#[derive(Debug)]
struct State {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// What a reader sees: all of it.
    seen: Vec<u8>,
    /// Counts power losses: what was opened before one is of no use after it.
    boot: u64,
    /// How many writes, changes of length and syncs are left until the power goes.
    fuse: Option<u64>,
    failing: Failing,
    /// Whether it says that there is much on it.
    large: bool,
    dice: Dice,
    losses: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    off: Arc<watch::Sender<bool>>,
}

/// How much of what was not synced a power loss keeps.
#[derive(Debug, Clone, Copy)]
enum Loss {
    All,
    Nothing,
    /// What came first, the last of it torn.
    Tail,
    /// Any writes, the last of them torn.
    Writes,
    /// Any sectors of any writes.
    Sectors,
}

impl Disk {
    pub fn new(dice: Dice) -> Disk {
        let state = State {
            synced: Vec::new(),
            unsynced: Vec::new(),
            seen: Vec::new(),
            boot: 0,
            fuse: None,
            failing: Failing::default(),
            large: false,
            dice,
            losses: Vec::new(),
        };
        Disk { state: Arc::new(Mutex::new(state)), off: Arc::new(watch::Sender::new(false)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no poison")
    }

    /// As a bus opens it; of no use after the next power loss.
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(Plugged { disk: self.clone(), boot: self.state().boot })
    }

    /// From now on it says that there is much on it.
    pub fn pretend_large(&self) {
        self.state().large = true;
    }

    /// The power goes after so many writes, changes of length and syncs.
    pub fn burn_after(&self, operations: u64) {
        self.state().fuse = Some(operations);
    }

    /// Waits for that.
    pub async fn off(&self) {
        self.off.subscribe().wait_for(|off| *off).await.expect("the disk lives");
    }

    /// The power goes now, if it has not gone yet.
    pub fn pull(&self) {
        let mut state = self.state();
        if !*self.off.borrow() {
            state.lose();
            self.off.send_replace(true);
        }
    }

    /// The power comes back: there is what was left.
    pub fn on(&self) {
        self.off.send_replace(false);
    }

    pub fn fail(&self, failing: Failing) {
        self.state().failing = failing;
    }

    /// What became of what was not synced, at each loss; for messages.
    pub fn losses(&self) -> Vec<&'static str> {
        self.state().losses.clone()
    }
}

impl State {
    fn change(&mut self, change: Change) {
        apply(&mut self.seen, &change);
        self.unsynced.push(change);
    }

    fn lose(&mut self) {
        let changes = std::mem::take(&mut self.unsynced);
        let (kept, loss) = survivors(&mut self.dice, changes);
        let mut length = self.synced.len();
        for change in &kept {
            if let Change::Length(to) = change {
                length = *to;
            }
        }
        for change in &kept {
            apply(&mut self.synced, change);
        }
        self.synced.resize(length, 0);
        self.seen = self.synced.clone();
        self.boot += 1;
        self.fuse = None;
        self.losses.push(loss);
    }
}

/// What a power loss leaves of changes that were not synced, and how that is called.
pub fn survivors(dice: &mut Dice, changes: Vec<Change>) -> (Vec<Change>, &'static str) {
    let loss = dice.pick(&[Loss::All, Loss::Nothing, Loss::Tail, Loss::Writes, Loss::Sectors]);
    let name = match loss {
        Loss::All => "all lost",
        Loss::Nothing => "nothing lost",
        Loss::Tail => "the last lost",
        Loss::Writes => "some writes lost",
        Loss::Sectors => "some sectors lost",
    };
    (kept(dice, loss, changes), name)
}

fn kept(dice: &mut Dice, loss: Loss, mut changes: Vec<Change>) -> Vec<Change> {
    match loss {
        Loss::All => return Vec::new(),
        Loss::Nothing => return changes,
        Loss::Tail => changes.truncate(dice.below(changes.len() as u64 + 1) as usize),
        Loss::Writes => {
            let chance = dice.pick(&[20, 50, 80]);
            changes.retain(|_| dice.percent(chance));
        }
        Loss::Sectors => {
            let chance = dice.pick(&[20, 50, 80, 98]);
            let sectors = changes.into_iter().flat_map(sectors).collect::<Vec<_>>();
            return sectors.into_iter().filter(|_| dice.percent(chance)).collect();
        }
    }
    if let Some(Change::Write { data, .. }) = changes.iter_mut().rfind(|c| matches!(c, Change::Write { .. }))
    {
        data.truncate(dice.below(data.len() as u64 + 1) as usize);
    }
    changes
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(to) => image.resize(*to, 0),
        Change::Write { offset, data } => {
            // What a length that was lost would have made room for is lost as well, in the end.
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
    }
}

fn sectors(change: Change) -> Vec<Change> {
    let Change::Write { mut offset, data } = change else { return vec![change] };
    let mut pieces = Vec::new();
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
        pieces.push(Change::Write { offset, data: piece.to_vec() });
        (offset, rest) = (offset + piece.len(), more);
    }
    pieces
}

/// The disk between two power losses.
#[derive(Debug)]
struct Plugged {
    disk: Disk,
    boot: u64,
}

impl Storage for Plugged {
    fn open(&self, _: bool) -> io::Result<Box<dyn StorageBackend>> {
        drop(self.live()?);
        Ok(Box::new(Plugged { disk: self.disk.clone(), boot: self.boot }))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(if self.live()?.large { LARGE } else { 0 })
    }

    fn name(&self) -> String {
        "the test's disk".into()
    }
}

impl Plugged {
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.boot == self.boot { Ok(state) } else { Err(Error::other("the power is off")) }
    }

    /// The same for what changes something; the power may go at this very moment.
    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.live()?;
        match &mut state.fuse {
            Some(0) => {
                drop(state);
                self.disk.pull();
                Err(Error::other("the power is off"))
            }
            Some(left) => {
                *left -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }
}

fn fail_if(fails: bool, state: &State) -> io::Result<()> {
    if fails { Err(Error::from_raw_os_error(state.failing.error)) } else { Ok(()) }
}

impl StorageBackend for Plugged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.live()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.live()?;
        fail_if(state.failing.reads, &state)?;
        let from = offset as usize;
        let found = state.seen.get(from..from + out.len());
        out.copy_from_slice(found.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.changing()?;
        fail_if(state.failing.growth && len as usize > state.seen.len(), &state)?;
        state.change(Change::Length(len as usize));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.changing()?;
        fail_if(state.failing.writes, &state)?;
        state.change(Change::Write { offset: offset as usize, data: data.to_vec() });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.changing()?;
        fail_if(state.failing.syncs, &state)?;
        for change in std::mem::take(&mut state.unsynced) {
            apply(&mut state.synced, &change);
        }
        Ok(())
    }
}
