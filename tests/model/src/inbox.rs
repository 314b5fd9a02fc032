//! Failure as commits: an event that fails comes back through the inbox, is given up as a dead letter after its last
//! attempt, and is redriven by an operator. Every delivery of it has a commit point of its own; what applying a commit
//! costs is the other modules' business, here it is one step that may be done again.

use stateright::{Model, Property};

use crate::{
    faults::{Faults, spend},
    paths::Fault,
};

const HOSTS: usize = 2;
const OPERATORS: usize = 2;
/// Of one life. A redrive begins another.
const ATTEMPTS: usize = 2;
const LIVES: usize = 2;
/// One for each attempt of each life; the first is the event's own stream, the others are in the inbox.
const PLACES: usize = ATTEMPTS * LIVES;

/// What a run that failed leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// A commit, whose effect is the next attempt or the dead letter.
    Commits,
    /// The next attempt is stored, the event acked: no commit.
    Stores,
    /// The event is handed back, and its host counts.
    Counts,
}

/// How a dead letter gets into the inbox again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redrive {
    /// Stored if its place is free; then the dead letter is deleted.
    CreatesThenDeletes,
    /// Stored, whatever is there; then the dead letter is deleted.
    StoresThenDeletes,
    /// The other way round.
    DeletesThenCreates,
}

/// One event, two hosts, two operators.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub failing: Failing,
    pub redrive: Redrive,
    /// What is in the inbox stays there after its ack.
    pub kept: bool,
    /// The places of a second life are others than those of the first.
    pub lives: bool,
    pub faults: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Done,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Free,
    /// A timer is to put it there.
    Due,
    There,
    Acked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Idle,
    Run(usize),
    Commit(usize, End),
    Apply(usize),
    Acknowledge(usize),
}

impl Step {
    fn at(self) -> Option<usize> {
        match self {
            Step::Idle => None,
            Step::Run(p) | Step::Commit(p, _) | Step::Apply(p) | Step::Acknowledge(p) => Some(p),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Redriving {
    No,
    Begun,
    HalfWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Dead {
    None,
    Kept,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    places: [Place; PLACES],
    commits: [Option<End>; PLACES],
    /// Whether the commit of a place has been applied: its ids make a second time harmless.
    applied: [bool; PLACES],
    dead: [Dead; LIVES],
    effects: u8,
    /// Outcomes that count as an attempt, by life.
    failed: [u8; LIVES],
    hosts: [(Step, u8); HOSTS],
    /// A commit whose host is no more.
    ghost: Option<(usize, End)>,
    operators: [Redriving; OPERATORS],
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver(usize, usize),
    Run(usize, End),
    Commit(usize),
    Apply(usize),
    Acknowledge(usize),
    Fire(usize),
    GhostArrives,
    Redrive(usize),
    First(usize),
    Second(usize),
    // Faults from here on.
    DeliverAgain(usize, usize),
    Crash(usize),
    CrashLeavingGhost(usize),
    OperatorCrashes(usize),
    ServerForgets(usize),
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        // Nobody has to redrive.
        matches!(
            self,
            Redrive(_)
                | DeliverAgain(..)
                | Crash(_)
                | CrashLeavingGhost(_)
                | OperatorCrashes(_)
                | ServerForgets(_)
        )
    }
}

fn life(place: usize) -> usize {
    place / ATTEMPTS
}

fn is_last(place: usize) -> bool {
    place % ATTEMPTS == ATTEMPTS - 1
}

impl Inbox {
    pub fn sound(faults: Faults) -> Inbox {
        Inbox {
            failing: Failing::Commits,
            redrive: Redrive::CreatesThenDeletes,
            kept: true,
            lives: true,
            faults,
        }
    }

    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Deliver(h, p) | Action::DeliverAgain(h, p) => {
                let held = s.hosts.iter().any(|(step, _)| step.at() == Some(p));
                let again = matches!(action, Action::DeliverAgain(..));
                if s.places[p] != Place::There || s.hosts[h].0 != Step::Idle || held != again {
                    return None;
                }
                if again {
                    spend(&mut s.left.again)?;
                }
                s.hosts[h].0 = if s.commits[p].is_some() { Step::Apply(p) } else { Step::Run(p) };
            }
            Action::Run(h, end) => {
                let (Step::Run(p), counted) = s.hosts[h] else { return None };
                s.hosts[h] = match (self.failing, end) {
                    (_, End::Done) | (Failing::Commits, End::Failed) => (Step::Commit(p, end), counted),
                    (Failing::Stores, End::Failed) => {
                        self.follow(s, p, End::Failed);
                        (Step::Acknowledge(p), counted)
                    }
                    (Failing::Counts, End::Failed) if usize::from(counted) + 1 < ATTEMPTS => {
                        s.failed[life(p)] += 1;
                        (Step::Idle, counted + 1)
                    }
                    (Failing::Counts, End::Failed) => (Step::Commit(p, end), 0),
                };
            }
            Action::Commit(h) => {
                let Step::Commit(p, end) = s.hosts[h].0 else { return None };
                self.commit(s, p, end);
                s.hosts[h].0 = Step::Apply(p);
            }
            Action::Apply(h) => {
                let Step::Apply(p) = s.hosts[h].0 else { return None };
                if let Some(end) = s.commits[p].filter(|_| !s.applied[p]) {
                    self.follow(s, p, end);
                    // The effects have ids; what goes to the inbox is told by its place alone.
                    s.applied[p] = end == End::Done || is_last(p);
                }
                s.hosts[h].0 = Step::Acknowledge(p);
            }
            Action::Acknowledge(h) => {
                let Step::Acknowledge(p) = s.hosts[h].0 else { return None };
                if s.places[p] == Place::There {
                    s.places[p] = Place::Acked;
                    if !self.kept && p > 0 {
                        free(s, p);
                    }
                }
                s.hosts[h].0 = Step::Idle;
            }
            Action::Fire(p) if s.places[p] == Place::Due => s.places[p] = Place::There,
            Action::GhostArrives => {
                let (p, end) = s.ghost.take()?;
                self.commit(s, p, end);
            }
            Action::Redrive(o) if s.operators[o] == Redriving::No && s.dead[0] == Dead::Kept => {
                s.operators[o] = Redriving::Begun;
            }
            Action::First(o) if s.operators[o] == Redriving::Begun => {
                self.redrive(s, self.redrive != Redrive::DeletesThenCreates);
                s.operators[o] = Redriving::HalfWay;
            }
            Action::Second(o) if s.operators[o] == Redriving::HalfWay => {
                self.redrive(s, self.redrive == Redrive::DeletesThenCreates);
                s.operators[o] = Redriving::No;
            }
            Action::Crash(h) if s.hosts[h].0 != Step::Idle => {
                spend(&mut s.left.crashes)?;
                s.hosts[h] = (Step::Idle, 0);
            }
            Action::CrashLeavingGhost(h) => {
                let Step::Commit(p, end) = s.hosts[h].0 else { return None };
                spend(&mut s.left.ghosts)?;
                if s.ghost.replace((p, end)).is_some() {
                    return None;
                }
                s.hosts[h] = (Step::Idle, 0);
            }
            Action::OperatorCrashes(o) if s.operators[o] == Redriving::HalfWay => {
                spend(&mut s.left.crashes)?;
                s.operators[o] = Redriving::No;
            }
            Action::ServerForgets(p) if s.places[p] == Place::Acked => {
                spend(&mut s.left.forgotten)?;
                s.places[p] = Place::There;
            }
            _ => return None,
        }
        Some(())
    }

    /// Created once.
    fn commit(&self, s: &mut State, p: usize, end: End) {
        if s.commits[p].is_none() {
            s.commits[p] = Some(end);
            if end == End::Failed {
                s.failed[life(p)] += 1;
            }
        }
    }

    /// Makes an end visible.
    fn follow(&self, s: &mut State, p: usize, end: End) {
        match end {
            End::Done => s.effects += 1,
            End::Failed if is_last(p) || self.failing == Failing::Counts => s.dead[life(p)] = Dead::Kept,
            End::Failed => {
                let next = if self.lives { p + 1 } else { p % ATTEMPTS + 1 };
                if s.places[next] == Place::Free {
                    s.places[next] = Place::Due;
                }
            }
        }
    }

    fn redrive(&self, s: &mut State, create: bool) {
        let place = ATTEMPTS;
        if !create {
            s.dead[0] = Dead::Gone;
        } else if self.redrive == Redrive::StoresThenDeletes {
            free(s, place);
            s.places[place] = Place::There;
        } else if s.places[place] == Place::Free {
            s.places[place] = Place::There;
        }
    }

    /// Nothing is left to do.
    pub fn at_rest(&self, s: &State) -> bool {
        is_quiet(s) && has_an_end(s)
    }
}

/// What comes here next is another message, with a commit point of its own.
fn free(s: &mut State, p: usize) {
    s.places[p] = Place::Free;
    s.commits[p] = None;
    s.applied[p] = false;
}

fn is_quiet(s: &State) -> bool {
    let idle = s.hosts.iter().all(|(step, _)| *step == Step::Idle);
    let over = s.places.iter().all(|place| matches!(place, Place::Free | Place::Acked));
    idle && over && s.ghost.is_none() && s.operators.iter().all(|o| *o == Redriving::No)
}

/// Done once, or a dead letter that nobody has redriven.
fn has_an_end(s: &State) -> bool {
    let first = s.dead[0] == Dead::Kept && s.places[ATTEMPTS] == Place::Free;
    let second = s.dead[1] == Dead::Kept;
    s.effects + u8::from(first) + u8::from(second) == 1
}

pub const ONCE: &str = "an event is done once";
pub const HAS_AN_END: &str = "an event is done or a dead letter, never both or neither";
pub const ATTEMPTS_ARE_EXACT: &str = "an event has no more attempts than it may";

impl Model for Inbox {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut places = [Place::Free; PLACES];
        places[0] = Place::There;
        vec![State {
            places,
            commits: [None; PLACES],
            applied: [false; PLACES],
            dead: [Dead::None; LIVES],
            effects: 0,
            failed: [0; LIVES],
            hosts: [(Step::Idle, 0); HOSTS],
            ghost: None,
            operators: [Redriving::No; OPERATORS],
            left: self.faults,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        for p in 0..PLACES {
            actions.extend((0..HOSTS).flat_map(|h| [Deliver(h, p), DeliverAgain(h, p)]));
            actions.extend([Fire(p), ServerForgets(p)]);
        }
        for h in 0..HOSTS {
            actions.extend([Run(h, End::Done), Run(h, End::Failed), Commit(h), Apply(h), Acknowledge(h)]);
            actions.extend([Crash(h), CrashLeavingGhost(h)]);
        }
        for o in 0..OPERATORS {
            actions.extend([Redrive(o), First(o), Second(o), OperatorCrashes(o)]);
        }
        actions.push(GhostArrives);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        state.hosts.sort_unstable();
        state.operators.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, s: &State| s.effects <= 1),
            Property::always(HAS_AN_END, |_, s: &State| !is_quiet(s) || has_an_end(s)),
            Property::always(ATTEMPTS_ARE_EXACT, |_, s: &State| {
                s.failed.iter().all(|failed| usize::from(*failed) <= ATTEMPTS)
            }),
            Property::sometimes("an event is done in its second life", |_, s: &State| {
                s.dead[0] == Dead::Gone && s.effects == 1
            }),
            Property::sometimes("an event is given up twice", |_, s: &State| s.dead[1] == Dead::Kept),
        ]
    }
}
