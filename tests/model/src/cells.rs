//! The class `cell`: a key's state, what it has settled and the effects of its last event are one message, compared and
//! set. An event may touch a second cell: then one atomic batch compares and sets both.

mod checks;

use crate::{
    faults::{Faults, spend},
    paths::Fault,
    target::{Effect, Log, Target},
};

pub use checks::{ACKED_APPLIED, COUNTED_ONCE, IN_ORDER, ONE_BY_ONE};

const EVENTS: usize = 3;
const HOSTS: usize = 2;
const CELLS: usize = 2;

/// What the handler of an event may do.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The cell of its order key.
    pub point: usize,
    pub other: Other,
    /// How many effects each branch has; none means no write, too.
    pub branches: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    Untouched,
    /// Reads the other cell, and writes to its own what it saw.
    Read,
    Written,
}

/// How hosts behave.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A write holds only if the cell is as it was read.
    pub compare: bool,
    pub ack: Ack,
    /// Effects that a cell holds are applied before its next event commits.
    pub earlier_first: bool,
    pub search: bool,
    /// Events without effects are committed, not only acked.
    pub commit_nothing: bool,
    pub foreign: Foreign,
    /// Both cells are written at once, or one after the other.
    pub atomic: bool,
    /// A cell that was only read is compared, too.
    pub markers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Last,
    First,
}

/// What becomes of effects that another cell holds when it is written along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// They are applied first, as in the event's own cell.
    Applied,
    /// They are carried over into the new message, whose time is then taken for that of their commit.
    Carried,
    Dropped,
}

impl Rules {
    pub const RIGHT: Rules = Rules {
        compare: true,
        ack: Ack::Last,
        earlier_first: true,
        search: true,
        commit_nothing: true,
        foreign: Foreign::Applied,
        atomic: true,
        markers: true,
    };
}

#[derive(Debug, Clone)]
pub struct Cells {
    pub events: &'static [Event],
    pub rules: Rules,
    pub faults: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
struct Cell {
    revision: u8,
    /// The state: each event that was counted, as its branch, and what it saw of the other cell in place of an ordinal.
    counted: Log,
    /// Events below are settled, and those whose bit is set.
    floor: u8,
    settled: u8,
    /// Event, branch.
    pending: Option<(usize, u8)>,
    /// The message is less than half a window old.
    young: bool,
}

impl Cell {
    fn has_settled(&self, e: usize) -> bool {
        usize::from(self.floor) > e || self.settled >> e & 1 == 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Delivered,
    /// The cells are read; what they hold must be applied.
    Opened,
    /// Effect `at` of what the event `of` has committed comes next.
    Apply {
        of: (usize, u8),
        at: u8,
        certain: bool,
        /// It is this event's own commit, or the remains in this cell.
        from: Option<usize>,
    },
    Send {
        of: (usize, u8),
        at: u8,
        certain: bool,
        late: bool,
        from: Option<usize>,
    },
    Ran(u8),
    Unsure(u8),
    /// The first of two writes is done.
    Half(u8),
    Done,
}

/// A host's event, and the cells as it read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Task {
    event: usize,
    step: Step,
    base: [Cell; CELLS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Ghost {
    Commit { event: usize, branch: u8, base: [Cell; CELLS] },
    Effect { effect: Effect, late: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    cells: [Cell; CELLS],
    acked: [bool; EVENTS],
    target: Target,
    hosts: [Option<Task>; HOSTS],
    ghosts: Vec<Ghost>,
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver(usize, usize),
    Open(usize),
    GoOn(usize),
    Run(usize, u8),
    Write(usize),
    Read(usize),
    Prepare(usize),
    Send(usize),
    Acknowledge(usize),
    GhostArrives(usize),
    // Faults from here on.
    DeliverAgain(usize, usize),
    WriteUnanswered(usize),
    WriteDelayed(usize),
    SendUnanswered(usize),
    SendDelayed(usize),
    AckLost(usize),
    Crash(usize),
    CrashLeavingGhost(usize),
    ServerForgetsAck(usize),
    HalfWindowPasses,
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        !matches!(
            self,
            Deliver(..)
                | Open(_)
                | GoOn(_)
                | Run(..)
                | Write(_)
                | Read(_)
                | Prepare(_)
                | Send(_)
                | Acknowledge(_)
                | GhostArrives(_)
        )
    }
}

impl Cells {
    fn effects(&self, (event, branch): (usize, u8)) -> u8 {
        self.events[event].branches[usize::from(branch)]
    }

    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        use Action::*;
        match action {
            Deliver(h, e) | DeliverAgain(h, e) => {
                let held = s.hosts.iter().flatten().any(|task| task.event == e);
                let again = matches!(action, DeliverAgain(..));
                if s.acked[e] || s.hosts[h].is_some() || held != again {
                    return None;
                }
                if again {
                    spend(&mut s.left.again)?;
                }
                s.hosts[h] = Some(Task { event: e, step: Step::Delivered, base: Default::default() });
            }
            Crash(h) => {
                spend(&mut s.left.crashes)?;
                s.hosts[h].take()?;
            }
            CrashLeavingGhost(h) => {
                spend(&mut s.left.crashes)?;
                let task = s.hosts[h].take()?;
                self.leave_ghost(s, task)?;
            }
            GhostArrives(at) => match s.ghosts.remove(at) {
                Ghost::Commit { event, branch, base } => {
                    self.set(s, event, branch, &base);
                }
                Ghost::Effect { effect, .. } => s.target.publish(effect),
            },
            ServerForgetsAck(e) => {
                if !s.acked[e] {
                    return None;
                }
                spend(&mut s.left.forgotten)?;
                s.acked[e] = false;
            }
            HalfWindowPasses => half_window_passes(s)?,
            Open(h)
            | GoOn(h)
            | Run(h, _)
            | Write(h)
            | Read(h)
            | Prepare(h)
            | Send(h)
            | Acknowledge(h)
            | WriteUnanswered(h)
            | WriteDelayed(h)
            | SendUnanswered(h)
            | SendDelayed(h)
            | AckLost(h) => {
                let task = s.hosts[h]?;
                s.hosts[h] = self.advance(s, task, action)?;
            }
        }
        Some(())
    }

    /// A host goes on with its event.
    fn advance(&self, s: &mut State, mut task: Task, action: Action) -> Option<Option<Task>> {
        use Action::*;
        let e = task.event;
        task.step = match (action, task.step) {
            (Open(_), Step::Delivered) => {
                task.base = self.read(s, e);
                self.opened(&task)
            }
            (GoOn(_), Step::Half(branch)) => {
                let mut after = self.changed(s, e, branch, &task.base);
                let foreign = &mut after[1 - self.events[e].point];
                foreign.revision = s.cells[1 - self.events[e].point].revision + 1;
                s.cells[1 - self.events[e].point] = *foreign;
                self.applying(&task, (e, branch), true, None)
            }
            (Run(_, branch), Step::Opened) => {
                if self.effects((e, branch)) == 0 && !self.rules.commit_nothing {
                    Step::Done
                } else {
                    Step::Ran(branch)
                }
            }
            (Write(_), Step::Ran(branch)) => match self.set(s, e, branch, &task.base) {
                true if !self.rules.atomic && self.events[e].other == Other::Written => Step::Half(branch),
                true => self.applying(&task, (e, branch), true, None),
                false => Step::Unsure(branch),
            },
            (WriteUnanswered(_), Step::Ran(branch)) => {
                spend(&mut s.left.lost)?;
                self.set(s, e, branch, &task.base);
                Step::Unsure(branch)
            }
            (WriteDelayed(_), Step::Ran(branch)) => {
                self.leave_ghost(s, task)?;
                Step::Unsure(branch)
            }
            (Read(_), Step::Unsure(branch)) => {
                let now = self.read(s, e);
                let settled = now[self.events[e].point].has_settled(e);
                let same = (0..CELLS).all(|c| now[c].revision == task.base[c].revision);
                // Settled, or a conflict: from the start. As it was: the same write again.
                if settled || !same { Step::Delivered } else { Step::Ran(branch) }
            }
            (Prepare(_), Step::Apply { of, at, certain, from }) => {
                let effect = Effect::new(of.0, of.1, at);
                if certain || !self.rules.search {
                    Step::Send { of, at, certain, late: false, from }
                } else if s.target.holds(effect) {
                    self.applied(&mut task, of, at + 1, certain, from)
                } else {
                    Step::Send { of, at, certain: true, late: false, from }
                }
            }
            (Send(_), Step::Send { of, at, certain, from, .. }) => {
                s.target.publish(Effect::new(of.0, of.1, at));
                self.applied(&mut task, of, at + 1, certain, from)
            }
            (SendUnanswered(_), Step::Send { of, at, certain, from, .. }) => {
                spend(&mut s.left.lost)?;
                s.target.publish(Effect::new(of.0, of.1, at));
                Step::Apply { of, at, certain, from }
            }
            (SendDelayed(_), Step::Send { of, at, certain, from, .. }) => {
                self.leave_ghost(s, task)?;
                Step::Apply { of, at, certain, from }
            }
            (Acknowledge(_), Step::Done) => {
                s.acked[e] = true;
                return Some(None);
            }
            (AckLost(_), Step::Done) => {
                spend(&mut s.left.lost)?;
                return Some(None);
            }
            _ => return None,
        };
        if matches!(task.step, Step::Delivered | Step::Done) {
            task.base = Default::default();
        }
        Some(Some(task))
    }

    /// The cells that an event touches, read one after the other; what changes in between is a conflict later.
    fn read(&self, s: &State, e: usize) -> [Cell; CELLS] {
        let mut cells = s.cells;
        if self.events[e].other == Other::Untouched {
            cells[1 - self.events[e].point] = Cell::default();
        }
        cells
    }

    /// What comes first in cells just read: remains, then the event itself.
    fn opened(&self, task: &Task) -> Step {
        let event = self.events[task.event];
        for c in [event.point, 1 - event.point] {
            let foreign = c != event.point;
            if foreign && (event.other != Other::Written || self.rules.foreign != Foreign::Applied)
                || !foreign && !self.rules.earlier_first && !task.base[c].has_settled(task.event)
            {
                continue;
            }
            if let Some(of) = task.base[c].pending {
                return self.applying(task, of, task.base[c].young, Some(c));
            }
        }
        match task.base[event.point].has_settled(task.event) {
            true => Step::Done,
            false => Step::Opened,
        }
    }

    fn applying(&self, task: &Task, of: (usize, u8), certain: bool, from: Option<usize>) -> Step {
        self.applied(&mut task.clone(), of, 0, certain, from)
    }

    /// What comes after effect `at - 1`.
    fn applied(&self, task: &mut Task, of: (usize, u8), at: u8, certain: bool, from: Option<usize>) -> Step {
        if at < self.effects(of) {
            return Step::Apply { of, at, certain, from };
        }
        match from {
            None => Step::Done,
            Some(cell) => {
                task.base[cell].pending = None;
                self.opened(task)
            }
        }
    }

    /// The cells after the event, as the host that read `base` makes them.
    fn changed(&self, s: &State, e: usize, branch: u8, base: &[Cell; CELLS]) -> [Cell; CELLS] {
        let event = self.events[e];
        let (own, foreign) = (event.point, 1 - event.point);
        let saw = match event.other {
            Other::Read => base[foreign].counted.iter().count() as u8,
            _ => 0,
        };
        let mut after = *base;
        after[own].counted.push(Effect::new(e, branch, saw));
        after[own].pending = (self.effects((e, branch)) > 0).then_some((e, branch));
        // What all have acked is settled; the event at hand is not, whatever the durable says.
        let acked = s.acked.iter().take(e).take_while(|acked| **acked).count() as u8;
        after[own].floor = after[own].floor.max(acked);
        after[own].settled = (after[own].settled | 1 << e) & (u8::MAX << after[own].floor);
        if event.other == Other::Written {
            after[foreign].counted.push(Effect::new(e, branch, 0));
            if self.rules.foreign == Foreign::Dropped {
                after[foreign].pending = None;
            }
        }
        for cell in &mut after {
            cell.revision += 1;
            cell.young = true;
        }
        after
    }

    /// The write of a commit arrives. False: refused.
    fn set(&self, s: &mut State, e: usize, branch: u8, base: &[Cell; CELLS]) -> bool {
        let event = self.events[e];
        let (own, foreign) = (event.point, 1 - event.point);
        let same = |c: usize| s.cells[c].revision == base[c].revision;
        let compared = match event.other {
            Other::Written => self.rules.atomic,
            Other::Read => self.rules.markers,
            Other::Untouched => false,
        };
        if self.rules.compare && (!same(own) || compared && !same(foreign)) {
            return false;
        }
        let after = self.changed(s, e, branch, base);
        s.cells[own] = after[own];
        if event.other == Other::Written && self.rules.atomic {
            s.cells[foreign] = after[foreign];
        }
        if self.rules.ack == Ack::First {
            s.acked[e] = true;
        }
        true
    }

    fn leave_ghost(&self, s: &mut State, task: Task) -> Option<()> {
        spend(&mut s.left.ghosts)?;
        s.ghosts.push(match task.step {
            Step::Ran(branch) => Ghost::Commit { event: task.event, branch, base: task.base },
            Step::Send { of, at, late, .. } => Ghost::Effect { effect: Effect::new(of.0, of.1, at), late },
            _ => return None,
        });
        Some(())
    }
}

fn half_window_passes(s: &mut State) -> Option<()> {
    spend(&mut s.left.windows)?;
    for cell in &mut s.cells {
        cell.young = false;
    }
    for task in s.hosts.iter_mut().flatten() {
        for cell in &mut task.base {
            cell.young = false;
        }
        match &mut task.step {
            Step::Apply { certain, .. } => *certain = false,
            // Half a window is the longest that a send takes.
            Step::Send { late: true, .. } => return None,
            Step::Send { certain, late, .. } => (*certain, *late) = (false, true),
            _ => {}
        }
    }
    for ghost in &mut s.ghosts {
        match ghost {
            Ghost::Effect { late: true, .. } => return None,
            Ghost::Effect { late, .. } => *late = true,
            Ghost::Commit { base, .. } => base.iter_mut().for_each(|cell| cell.young = false),
        }
    }
    s.target.tick();
    Some(())
}
