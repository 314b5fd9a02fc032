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
    /// As many have come to it again, since it was told the number of those that are not acked.
    Proven,
    /// The same, but it goes on without a barrier where a connection was lost and the pin was not.
    OncePerPin,
    /// The same, but it doesn't ask for those again that it held when it was told the number.
    KeepsHeld,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub barrier: Barrier,
    pub faults: Faults,
}

/// An event on a host that its caller does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Copy {
    #[default]
    None,
    Held,
    /// It was outstanding when the host was told the number.
    Proven,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Host {
    held: [Copy; EVENTS],
    /// How many were outstanding at a moment, and how many had been delivered to anybody.
    told: Option<(u8, u8)>,
    /// Past the barrier since it gained the pin.
    begun: bool,
    /// What its caller has, in the order in which it was given; the first runs.
    given: [Option<u8>; EVENTS],
    /// How many were committed when the first read the cell, if it runs.
    read: Option<u8>,
}

impl Host {
    /// To the caller, who drops what it has already.
    fn give(&mut self, event: usize) {
        let event = u8::try_from(event).ok();
        if !self.given.contains(&event)
            && let Some(place) = self.given.iter_mut().find(|place| place.is_none())
        {
            *place = event;
        }
    }

    fn first(&self) -> Option<usize> {
        self.given[0].map(usize::from)
    }

    /// The first is through.
    fn shift(&mut self) {
        self.given.rotate_left(1);
        self.given[EVENTS - 1] = None;
    }
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
    /// The pinned host is told what is outstanding, and hands back what it holds.
    Look,
    PassBarrier(usize),
    /// The caller takes the earliest.
    Give(usize),
    Run(usize),
    Commit(usize),
    // Faults from here on.
    /// The host that had it hands back what its caller has not taken as soon as it hears of it: or never.
    PinMoves,
    HandBack(usize),
    Crash(usize),
    /// The next is delivered to a connection that is lost, and the pin stays.
    LostOnTheWay,
    ServerForgetsAck(usize),
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        matches!(self, PinMoves | Crash(_) | LostOnTheWay | ServerForgetsAck(_))
    }
}

impl Order {
    fn arrives(&self, host: &mut Host, event: usize) {
        if host.begun || self.barrier == Barrier::None {
            host.held[event] = Copy::Held;
            return;
        }
        let proven = host.told.is_some_and(|(_, delivered)| event < usize::from(delivered));
        host.held[event] = if proven { Copy::Proven } else { Copy::Held };
    }

    /// Whether all that was outstanding is held, as far as the rule goes.
    fn may_begin(&self, host: &Host, outstanding: usize) -> bool {
        let counts = |what: &dyn Fn(Copy) -> bool| host.held.iter().filter(|copy| what(**copy)).count();
        let told = host.told.map(|(outstanding, _)| usize::from(outstanding));
        match self.barrier {
            Barrier::None => true,
            Barrier::Counted => counts(&|copy| copy != Copy::None) == outstanding,
            _ => told == Some(counts(&|copy| copy == Copy::Proven)),
        }
    }

    /// A connection made anew, by the same pin or another.
    fn session(host: &mut Host) {
        host.held = Default::default();
        host.begun = false;
        host.told = None;
    }

    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        let outstanding = s.acked[..s.next].iter().filter(|acked| !**acked).count();
        match action {
            Action::Deliver => {
                (s.next < EVENTS).then_some(())?;
                self.arrives(&mut s.hosts[s.pinned], s.next);
                s.next += 1;
            }
            Action::Redeliver(e) => {
                let host = &mut s.hosts[s.pinned];
                (e < s.next && !s.acked[e] && host.held[e] == Copy::None).then_some(())?;
                // What a host runs it keeps alive; a copy that comes all the same is dropped, and leads nowhere.
                (!host.given.contains(&u8::try_from(e).ok())).then_some(())?;
                self.arrives(host, e);
            }
            Action::Look => {
                let host = &mut s.hosts[s.pinned];
                // Only where the number is no longer the one that it knows; otherwise nothing would ever come of it.
                let told = Some((u8::try_from(outstanding).ok()?, u8::try_from(s.next).ok()?));
                let held = host.held.iter().filter(|copy| **copy != Copy::None).count();
                (!host.begun && host.told != told && (host.told.is_none() || held >= outstanding))
                    .then_some(())?;
                host.told = told;
                match self.barrier {
                    Barrier::KeepsHeld => {
                        host.held.iter_mut().filter(|c| **c != Copy::None).for_each(|c| *c = Copy::Proven);
                    }
                    _ => host.held = Default::default(),
                }
            }
            Action::PassBarrier(h) => {
                let host = &mut s.hosts[h];
                (!host.begun && self.may_begin(host, outstanding)).then_some(())?;
                host.begun = true;
            }
            Action::Give(h) => {
                let host = &mut s.hosts[h];
                host.begun.then_some(())?;
                let first = host.held.iter().position(|copy| *copy != Copy::None)?;
                host.held[first] = Copy::None;
                host.give(first);
            }
            Action::Run(h) => {
                let host = &mut s.hosts[h];
                (host.first().is_some() && host.read.is_none()).then_some(())?;
                host.read = Some(s.committed.iter().flatten().count() as u8);
            }
            Action::Commit(h) => {
                let (e, read) = (s.hosts[h].first()?, s.hosts[h].read.take()?);
                let count = s.committed.iter().flatten().count() as u8;
                if s.committed[e].is_none() {
                    if count != read {
                        // A conflict: it runs again on the fresh state.
                        return Some(());
                    }
                    s.committed[e] = Some(count);
                }
                s.acked[e] = true;
                s.hosts[h].shift();
            }
            Action::PinMoves => {
                spend(&mut s.left.again)?;
                s.pinned = 1 - s.pinned;
                Self::session(&mut s.hosts[s.pinned]);
            }
            Action::HandBack(h) => {
                let host = &mut s.hosts[h];
                (s.pinned != h && host.held != [Copy::None; EVENTS]).then_some(())?;
                Self::session(host);
            }
            Action::Crash(h) => {
                spend(&mut s.left.crashes)?;
                s.hosts[h] = Host::default();
            }
            Action::LostOnTheWay => {
                (s.next < EVENTS).then_some(())?;
                spend(&mut s.left.lost)?;
                s.next += 1;
                if self.barrier != Barrier::OncePerPin {
                    Self::session(&mut s.hosts[s.pinned]);
                }
            }
            Action::ServerForgetsAck(e) => {
                s.acked[e].then_some(())?;
                spend(&mut s.left.forgotten)?;
                s.acked[e] = false;
                // It has been started anew: so are the connections.
                s.hosts.iter_mut().for_each(Self::session);
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
        actions.extend([Deliver, Look, PinMoves, LostOnTheWay]);
        actions.extend(
            (0..HOSTS).flat_map(|h| [PassBarrier(h), Give(h), Run(h), Commit(h), HandBack(h), Crash(h)]),
        );
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
                s.hosts.iter().all(|host| host.read.is_some())
            }),
        ]
    }
}
