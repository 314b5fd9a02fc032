//! A timer as an effect: a schedule that the server fires once its time has come, into an inbox. The fired schedule is
//! gone, and with it, when the server starts again, its message id; the inbox keeps what has fired.

use stateright::{Model, Property};

use crate::{
    faults::{Faults, spend},
    paths::Fault,
};

const HOSTS: usize = 2;

/// How the committed schedule is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// With its message id, and nothing else.
    ById,
    /// If it is neither in the inbox nor waiting; then with its message id.
    AfterLook,
    /// The write itself expects that the inbox has nothing of that id.
    Guarded,
}

/// One event whose commit, already stored, holds one schedule.
#[derive(Debug, Clone)]
pub struct Timers {
    pub create: Create,
    pub faults: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Idle,
    Apply,
    /// On its way; `late`: since half a window.
    Create {
        late: bool,
    },
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    waiting: bool,
    inbox: bool,
    fired: u8,
    /// Half windows since the schedule's id was taken, while it is remembered.
    id: Option<u8>,
    acked: bool,
    hosts: [Step; HOSTS],
    /// A creation whose host is no more.
    ghost: Option<bool>,
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deliver(usize),
    Look(usize),
    Create(usize),
    Acknowledge(usize),
    GhostArrives,
    Fire,
    // Faults from here on.
    DeliverAgain(usize),
    Crash(usize),
    CrashLeavingGhost(usize),
    /// Killed and started again: it knows the ids of what is stored, and has forgotten the ack.
    ServerRestarts,
    HalfWindowPasses,
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        matches!(self, DeliverAgain(_) | Crash(_) | CrashLeavingGhost(_) | ServerRestarts | HalfWindowPasses)
    }
}

impl Timers {
    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Deliver(h) | Action::DeliverAgain(h) => {
                let held = s.hosts.iter().any(|step| *step != Step::Idle);
                let again = matches!(action, Action::DeliverAgain(_));
                if s.acked || s.hosts[h] != Step::Idle || held != again {
                    return None;
                }
                if again {
                    spend(&mut s.left.again)?;
                }
                s.hosts[h] = Step::Apply;
            }
            Action::Look(h) if s.hosts[h] == Step::Apply => {
                let there = self.create == Create::AfterLook && (s.inbox || s.waiting);
                s.hosts[h] = if there { Step::Done } else { Step::Create { late: false } };
            }
            Action::Create(h) if matches!(s.hosts[h], Step::Create { .. }) => {
                self.create(s);
                s.hosts[h] = Step::Done;
            }
            Action::Acknowledge(h) if s.hosts[h] == Step::Done => {
                s.acked = true;
                s.hosts[h] = Step::Idle;
            }
            Action::GhostArrives => {
                s.ghost.take()?;
                self.create(s);
            }
            Action::Fire if s.waiting => {
                s.waiting = false;
                s.inbox = true;
                s.fired += 1;
            }
            Action::Crash(h) if s.hosts[h] != Step::Idle => {
                spend(&mut s.left.crashes)?;
                s.hosts[h] = Step::Idle;
            }
            Action::CrashLeavingGhost(h) => {
                let Step::Create { late } = s.hosts[h] else { return None };
                spend(&mut s.left.crashes)?;
                if s.ghost.replace(late).is_some() {
                    return None;
                }
                s.hosts[h] = Step::Idle;
            }
            Action::ServerRestarts => {
                spend(&mut s.left.forgotten)?;
                s.acked = false;
                s.id = s.id.filter(|_| s.waiting);
            }
            Action::HalfWindowPasses => {
                spend(&mut s.left.windows)?;
                for step in &mut s.hosts {
                    match step {
                        Step::Create { late: true } => return None,
                        Step::Create { late } => *late = true,
                        _ => {}
                    }
                }
                match &mut s.ghost {
                    Some(true) => return None,
                    Some(late) => *late = true,
                    None => {}
                }
                s.id = s.id.map(|age| age + 1).filter(|age| *age < 2);
            }
            _ => return None,
        }
        Some(())
    }

    fn create(&self, s: &mut State) {
        let refused = self.create == Create::Guarded && s.inbox;
        if !refused && s.id.is_none() {
            s.waiting = true;
            s.id = Some(0);
        }
    }

    /// Nothing is left to do.
    pub fn at_rest(&self, s: &State) -> bool {
        let idle = s.hosts.iter().all(|step| *step == Step::Idle);
        s.acked && idle && s.ghost.is_none() && s.fired == 1 && !s.waiting
    }
}

pub const FIRES_ONCE: &str = "a timer fires once";

impl Model for Timers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            waiting: false,
            inbox: false,
            fired: 0,
            id: None,
            acked: false,
            hosts: [Step::Idle; HOSTS],
            ghost: None,
            left: self.faults,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        for h in 0..HOSTS {
            let host = [Deliver(h), Look(h), Create(h), Acknowledge(h), DeliverAgain(h), Crash(h)];
            actions.extend(host.into_iter().chain([CrashLeavingGhost(h)]));
        }
        actions.extend([GhostArrives, Fire, ServerRestarts, HalfWindowPasses]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        state.hosts.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FIRES_ONCE, |_, s: &State| s.fired <= 1),
            Property::always("what is acked waits or has fired", |_, s: &State| {
                !s.acked || s.waiting || s.fired > 0
            }),
            Property::sometimes("a creation comes after the firing", |_, s: &State| {
                s.fired > 0 && s.hosts.iter().any(|step| matches!(step, Step::Create { .. }))
            }),
        ]
    }
}
