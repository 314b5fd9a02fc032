//! Order: one host is active, the pinned one; a host that gains the pin begins only when it holds all that is delivered and
//! not acked. Commits are a compare-and-set, here one step; effects are left to the model of cells.

use stateright::{Model, Property};

use crate::{
    faults::{Faults, spend},
    paths::Fault,
};

const EVENTS: usize = 3;
const HOSTS: usize = 2;

/// What a host that gains the pin waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    None,
    /// It holds as many deliveries as are not acked.
    Counted,
    /// The same, of those that it has looked for and found not settled; what has settled it acks and drops.
    Looked,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub barrier: Barrier,
    pub faults: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Host {
    /// Which events it holds, and whether it has passed the barrier since it gained the pin.
    held: [bool; EVENTS],
    begun: bool,
    /// The event that runs, and how many were committed when it read the cell.
    runs: Option<(usize, u8)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pinned: usize,
    /// Never delivered are those from here on.
    next: usize,
    acked: [bool; EVENTS],
    committed: [Option<u8>; EVENTS],
    hosts: [Host; HOSTS],
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The pinned host gets the next event, or again one that is not acked.
    Deliver,
    Redeliver(usize),
    PassBarrier,
    DropSettled(usize, usize),
    Run(usize),
    Commit(usize),
    // Faults from here on.
    PinMoves,
    Crash(usize),
    ServerForgetsAck(usize),
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        matches!(self, Action::PinMoves | Action::Crash(_) | Action::ServerForgetsAck(_))
    }
}

impl Order {
    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Deliver => {
                (s.next < EVENTS).then_some(())?;
                s.hosts[s.pinned].held[s.next] = true;
                s.next += 1;
            }
            Action::Redeliver(e) => {
                let host = &mut s.hosts[s.pinned];
                (e < s.next && !s.acked[e] && !host.held[e]).then_some(())?;
                host.held[e] = true;
            }
            Action::PassBarrier => {
                let outstanding = s.acked[..s.next].iter().filter(|acked| !**acked).count();
                let host = &mut s.hosts[s.pinned];
                let held = (0..EVENTS).filter(|e| host.held[*e]);
                let settled = held.clone().any(|e| s.committed[e].is_some());
                (!host.begun && held.count() == outstanding).then_some(())?;
                (self.barrier == Barrier::Counted || !settled).then_some(())?;
                host.begun = true;
            }
            Action::DropSettled(h, e) => {
                let host = &mut s.hosts[h];
                (host.held[e] && s.committed[e].is_some()).then_some(())?;
                // What runs finds it out by itself.
                host.runs.is_none().then_some(())?;
                host.held[e] = false;
                s.acked[e] = true;
            }
            Action::Run(h) => {
                let host = &mut s.hosts[h];
                let first = (0..EVENTS).find(|e| host.held[*e])?;
                ((host.begun || self.barrier == Barrier::None) && host.runs.is_none()).then_some(())?;
                host.runs = Some((first, s.committed.iter().flatten().count() as u8));
            }
            Action::Commit(h) => {
                let (e, read) = s.hosts[h].runs.take()?;
                let count = s.committed.iter().flatten().count() as u8;
                if s.committed[e].is_none() {
                    if count != read {
                        // A conflict: it runs again on the fresh state.
                        return Some(());
                    }
                    s.committed[e] = Some(count);
                }
                s.acked[e] = true;
                s.hosts[h].held[e] = false;
            }
            Action::PinMoves => {
                spend(&mut s.left.again)?;
                s.pinned = 1 - s.pinned;
                s.hosts[s.pinned].begun = false;
            }
            Action::Crash(h) => {
                spend(&mut s.left.crashes)?;
                s.hosts[h] = Host::default();
            }
            Action::ServerForgetsAck(e) => {
                s.acked[e].then_some(())?;
                spend(&mut s.left.forgotten)?;
                s.acked[e] = false;
            }
        }
        Some(())
    }

    /// Nothing is left to do.
    pub fn at_rest(&self, s: &State) -> bool {
        s.acked.iter().all(|acked| *acked)
    }
}

pub const STREAM_ORDER: &str = "events commit in stream order";

impl Model for Order {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            pinned: 0,
            next: 0,
            acked: [false; EVENTS],
            committed: [None; EVENTS],
            hosts: [Host::default(); HOSTS],
            left: self.faults,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Deliver, PassBarrier, PinMoves]);
        actions.extend((0..HOSTS).flat_map(|h| [Run(h), Commit(h), Crash(h)]));
        if self.barrier == Barrier::Looked {
            actions.extend((0..HOSTS).flat_map(|h| (0..EVENTS).map(move |e| DropSettled(h, e))));
        }
        actions.extend((0..EVENTS).flat_map(|e| [Redeliver(e), ServerForgetsAck(e)]));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(STREAM_ORDER, |_, s: &State| {
                s.committed.iter().enumerate().all(|(e, at)| at.is_none_or(|at| usize::from(at) == e))
            }),
            Property::sometimes("both hosts run at once", |_, s: &State| {
                s.hosts.iter().all(|host| host.runs.is_some())
            }),
        ]
    }
}
