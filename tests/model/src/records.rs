//! The class `record`: one create-only message per event holds the effects of the run that was first.

mod checks;

use crate::{
    faults::{Faults, spend},
    paths::Fault,
    target::{Effect, Target},
};

pub use checks::{ACKED_APPLIED, ONE_RUN};

const EVENTS: usize = 2;
const HOSTS: usize = 2;

/// How hosts behave.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub lease: Lease,
    /// A commit's write reaches the server at most so many leases after the check before it.
    pub latest_write: u8,
    pub forget: Forget,
    pub search: Search,
    pub ack: Ack,
    pub nothing: Nothing,
    /// Whether a record is created only if there is none.
    pub create_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Before each write of a commit the floor is known to have been below the event less than a lease ago.
    EachWrite,
    /// Only before the first; one whose outcome is unknown is repeated unchecked.
    FirstWrite,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    AtOnce,
    /// This many leases after the persisted floor passed the event.
    Leases(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The target is searched for an effect once half its window has passed since the commit or the last search.
    HalfWindow,
    /// The message id alone must do.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// When all is applied.
    Last,
    /// When it is committed.
    First,
}

/// What is done when a run has no effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// It is committed like any other.
    Commit,
    /// It is acked if there is no record.
    Look,
    /// It is acked.
    Ack,
}

impl Rules {
    pub const RIGHT: Rules = Rules {
        lease: Lease::EachWrite,
        latest_write: 1,
        forget: Forget::Leases(2),
        search: Search::HalfWindow,
        ack: Ack::Last,
        nothing: Nothing::Commit,
        create_only: true,
    };
}

#[derive(Debug, Clone)]
pub struct Records {
    /// For each event and each branch that its handler may take, how many effects that has.
    pub events: &'static [&'static [u8]],
    pub rules: Rules,
    pub faults: Faults,
}

/// Of one copy of one event on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Task {
    None,
    Delivered,
    Ran(u8),
    /// The lease was checked so many leases ago; the write is on its way.
    Cleared(u8, u8),
    /// The write of this branch was sent; whether it was stored is not known.
    Unsure(u8),
    /// `certain`: less than half a window since the commit, or since the target was searched.
    Apply {
        branch: u8,
        at: u8,
        certain: bool,
    },
    /// Decided to send; `late`: half a window ago.
    Send {
        branch: u8,
        at: u8,
        certain: bool,
        late: bool,
    },
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Host {
    /// The persisted floor as confirmed less than a lease ago.
    view: Option<u8>,
    tasks: [Task; EVENTS],
}

const IDLE: Host = Host { view: None, tasks: [Task::None; EVENTS] };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    branch: u8,
    /// Less than half a window old.
    young: bool,
}

/// A request whose host no longer waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Ghost {
    Commit { event: usize, branch: u8, late: u8 },
    Effect { effect: Effect, late: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    records: [Option<Record>; EVENTS],
    acked: [bool; EVENTS],
    /// Events below are known to be acked, persistently.
    floor: u8,
    /// Leases since the floor passed each event, as far as it matters.
    passed: [u8; EVENTS],
    target: Target,
    hosts: [Host; HOSTS],
    ghosts: Vec<Ghost>,
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver(usize, usize),
    Look(usize, usize),
    Run(usize, usize, u8),
    Check(usize, usize),
    Write(usize, usize),
    Read(usize, usize),
    Prepare(usize, usize),
    Send(usize, usize),
    Acknowledge(usize, usize),
    GhostArrives(usize),
    PersistFloor,
    Purge(usize),
    // Faults from here on.
    DeliverAgain(usize, usize),
    WriteUnanswered(usize, usize),
    WriteDelayed(usize, usize),
    SendUnanswered(usize, usize),
    SendDelayed(usize, usize),
    AckLost(usize, usize),
    Crash(usize),
    CrashLeavingGhosts(usize),
    ServerForgetsAck(usize),
    HalfWindowPasses,
    LeasePasses,
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        matches!(
            self,
            DeliverAgain(..)
                | WriteUnanswered(..)
                | WriteDelayed(..)
                | SendUnanswered(..)
                | SendDelayed(..)
                | AckLost(..)
                | Crash(_)
                | CrashLeavingGhosts(_)
                | ServerForgetsAck(_)
                | HalfWindowPasses
                | LeasePasses
        )
    }
}

impl Records {
    fn effects(&self, event: usize, branch: u8) -> u8 {
        self.events[event][usize::from(branch)]
    }

    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Deliver(h, e) | Action::DeliverAgain(h, e) => {
                let held = s.hosts.iter().any(|host| host.tasks[e] != Task::None);
                let again = matches!(action, Action::DeliverAgain(..));
                if s.acked[e] || s.hosts[h].tasks[e] != Task::None || held != again {
                    return None;
                }
                if again {
                    spend(&mut s.left.again)?;
                }
                s.hosts[h].tasks[e] = Task::Delivered;
            }
            Action::Crash(h) => self.crash(s, h, false)?,
            Action::CrashLeavingGhosts(h) => self.crash(s, h, true)?,
            Action::GhostArrives(at) => match s.ghosts.remove(at) {
                Ghost::Commit { event, branch, .. } => {
                    self.create(s, event, branch);
                }
                Ghost::Effect { effect, .. } => s.target.publish(effect),
            },
            Action::PersistFloor => {
                let floor = s.acked.iter().take(self.events.len()).take_while(|acked| **acked).count() as u8;
                if floor <= s.floor {
                    return None;
                }
                s.floor = floor;
            }
            Action::Purge(e) => {
                let ripe = match self.rules.forget {
                    Forget::AtOnce => s.acked[e],
                    Forget::Leases(n) => usize::from(s.floor) > e && s.passed[e] >= n,
                };
                if !ripe {
                    return None;
                }
                s.records[e].take()?;
            }
            Action::ServerForgetsAck(e) => {
                if !s.acked[e] {
                    return None;
                }
                spend(&mut s.left.forgotten)?;
                s.acked[e] = false;
            }
            Action::HalfWindowPasses => self.half_window_passes(s)?,
            Action::LeasePasses => self.lease_passes(s)?,
            Action::Look(h, e)
            | Action::Run(h, e, _)
            | Action::Check(h, e)
            | Action::Write(h, e)
            | Action::Read(h, e)
            | Action::Prepare(h, e)
            | Action::Send(h, e)
            | Action::Acknowledge(h, e)
            | Action::WriteUnanswered(h, e)
            | Action::WriteDelayed(h, e)
            | Action::SendUnanswered(h, e)
            | Action::SendDelayed(h, e)
            | Action::AckLost(h, e) => s.hosts[h].tasks[e] = self.advance(s, h, e, action)?,
        }
        Some(())
    }

    /// A host goes on with an event.
    fn advance(&self, s: &mut State, h: usize, e: usize, action: Action) -> Option<Task> {
        use Action::*;
        Some(match (action, s.hosts[h].tasks[e]) {
            (Look(..), Task::Delivered) => self.stored(s, e)?,
            (Run(_, _, branch), Task::Delivered) => match (self.effects(e, branch), self.rules.nothing) {
                (0, Nothing::Ack) => Task::Done,
                _ => Task::Ran(branch),
            },
            (Check(..), Task::Ran(branch)) => {
                if self.effects(e, branch) == 0 && self.rules.nothing == Nothing::Look {
                    return Some(self.stored(s, e).unwrap_or(Task::Done));
                }
                if self.rules.lease == Lease::Never {
                    return Some(Task::Cleared(branch, 0));
                }
                let floor = *s.hosts[h].view.get_or_insert(s.floor);
                // At or below the floor somebody has acked it, so it is applied.
                if usize::from(floor) > e { Task::Done } else { Task::Cleared(branch, 0) }
            }
            (Write(..), Task::Cleared(branch, _)) => match self.create(s, e, branch) {
                true => self.stored(s, e)?,
                false => Task::Unsure(branch),
            },
            (WriteUnanswered(..), Task::Cleared(branch, _)) => {
                spend(&mut s.left.lost)?;
                self.create(s, e, branch);
                Task::Unsure(branch)
            }
            (WriteDelayed(..), Task::Cleared(branch, late)) => {
                spend(&mut s.left.ghosts)?;
                s.ghosts.push(Ghost::Commit { event: e, branch, late });
                Task::Unsure(branch)
            }
            (Read(..), Task::Unsure(branch)) => match self.stored(s, e) {
                Some(task) => task,
                None if self.rules.lease == Lease::FirstWrite => Task::Cleared(branch, 0),
                None => Task::Ran(branch),
            },
            (Prepare(..), Task::Apply { branch, at, certain }) => {
                if certain || self.rules.search == Search::Never {
                    Task::Send { branch, at, certain, late: false }
                } else if s.target.holds(Effect::new(e, branch, at)) {
                    self.apply(e, branch, at + 1, certain)
                } else {
                    Task::Send { branch, at, certain: true, late: false }
                }
            }
            (Send(..), Task::Send { branch, at, certain, .. }) => {
                s.target.publish(Effect::new(e, branch, at));
                self.apply(e, branch, at + 1, certain)
            }
            (SendUnanswered(..), Task::Send { branch, at, certain, .. }) => {
                spend(&mut s.left.lost)?;
                s.target.publish(Effect::new(e, branch, at));
                Task::Apply { branch, at, certain }
            }
            (SendDelayed(..), Task::Send { branch, at, certain, late }) => {
                spend(&mut s.left.ghosts)?;
                s.ghosts.push(Ghost::Effect { effect: Effect::new(e, branch, at), late });
                Task::Apply { branch, at, certain }
            }
            (Acknowledge(..), Task::Done) => {
                s.acked[e] = true;
                Task::None
            }
            (AckLost(..), Task::Done) => {
                spend(&mut s.left.lost)?;
                Task::None
            }
            _ => return None,
        })
    }

    /// The write of a commit arrives. False: refused.
    fn create(&self, s: &mut State, e: usize, branch: u8) -> bool {
        if self.rules.create_only && s.records[e].is_some() {
            return false;
        }
        s.records[e] = Some(Record { branch, young: true });
        if self.rules.ack == Ack::First {
            s.acked[e] = true;
        }
        true
    }

    /// What is to be done according to the record, if there is one.
    fn stored(&self, s: &State, e: usize) -> Option<Task> {
        let Record { branch, young } = s.records[e]?;
        Some(self.apply(e, branch, 0, young))
    }

    fn apply(&self, e: usize, branch: u8, at: u8, certain: bool) -> Task {
        match at == self.effects(e, branch) {
            true => Task::Done,
            false => Task::Apply { branch, at, certain },
        }
    }

    fn crash(&self, s: &mut State, h: usize, ghosts: bool) -> Option<()> {
        if s.hosts[h].tasks == IDLE.tasks {
            return None;
        }
        spend(&mut s.left.crashes)?;
        if ghosts {
            let before = s.ghosts.len();
            for (event, task) in s.hosts[h].tasks.into_iter().enumerate() {
                let ghost = match task {
                    Task::Cleared(branch, late) => Ghost::Commit { event, branch, late },
                    Task::Send { branch, at, late, .. } => {
                        Ghost::Effect { effect: Effect::new(event, branch, at), late }
                    }
                    _ => continue,
                };
                spend(&mut s.left.ghosts)?;
                s.ghosts.push(ghost);
            }
            if s.ghosts.len() == before {
                return None;
            }
        }
        s.hosts[h] = IDLE;
        Some(())
    }

    fn half_window_passes(&self, s: &mut State) -> Option<()> {
        spend(&mut s.left.windows)?;
        for record in s.records.iter_mut().flatten() {
            record.young = false;
        }
        for task in s.hosts.iter_mut().flat_map(|host| &mut host.tasks) {
            match task {
                Task::Apply { certain, .. } => *certain = false,
                // Half a window is the longest that a send takes.
                Task::Send { late: true, .. } => return None,
                Task::Send { certain, late, .. } => (*certain, *late) = (false, true),
                _ => {}
            }
        }
        for ghost in &mut s.ghosts {
            match ghost {
                Ghost::Effect { late: true, .. } => return None,
                Ghost::Effect { late, .. } => *late = true,
                Ghost::Commit { .. } => {}
            }
        }
        s.target.tick();
        Some(())
    }

    fn lease_passes(&self, s: &mut State) -> Option<()> {
        spend(&mut s.left.leases)?;
        let checked = self.rules.lease != Lease::Never;
        for host in &mut s.hosts {
            host.view = None;
            for task in &mut host.tasks {
                if let Task::Cleared(_, late) = task
                    && checked
                {
                    *late += 1;
                    if *late > self.rules.latest_write {
                        return None;
                    }
                }
            }
        }
        for ghost in &mut s.ghosts {
            if let Ghost::Commit { late, .. } = ghost
                && checked
            {
                *late += 1;
                if *late > self.rules.latest_write {
                    return None;
                }
            }
        }
        if let Forget::Leases(n) = self.rules.forget {
            for (e, passed) in s.passed.iter_mut().enumerate() {
                *passed = if usize::from(s.floor) > e { (*passed + 1).min(n) } else { 0 };
            }
        }
        Some(())
    }
}
