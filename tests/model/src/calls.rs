//! Calls under an idempotency key: two clients, or one that repeats itself, at two hosts. The key names the call, the inbox has a
//! place for each of its lives, each life an answer. What a run and its commit cost is the other modules' business; here a place
//! is run in one step, once, as long as the inbox remembers it.

use stateright::{Model, Property};

use crate::{
    faults::{Faults, spend},
    paths::Fault,
};

const ASKERS: usize = 2;
const LIVES: usize = 3;
/// Calls that the key may stand for, one after the other.
const CALLS: usize = 2;

/// What hosts do about it.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The key is written only where it is as it was seen.
    pub compared: bool,
    /// Another life begins once the answer of the one before is there.
    pub after_its_answer: bool,
    /// Each life has an answer of its own.
    pub apart: bool,
    /// The inbox remembers a call for longer than its key can be found.
    pub inbox_outlives: bool,
    /// So do answers.
    pub answers_outlive: bool,
    pub faults: Faults,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Ok,
    /// A status that is not kept against a repeat.
    Passing,
}

/// One life of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life {
    call: usize,
    life: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Place {
    stored: bool,
    committed: Option<End>,
    /// The answer can be read; and could be, before it was forgotten.
    answered: bool,
    applied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Look,
    /// The key was seen; what its call was answered comes next.
    Read(Life),
    /// Of the first life of a call, or of the life after this one.
    Write(Option<Life>),
    Store(Life),
    Wait(Life),
    Told(Life, End),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    key: Option<Life>,
    /// Calls that the key has stood for.
    calls: usize,
    places: [[Place; LIVES]; CALLS],
    /// What is under a subject that all lives share.
    last: [Option<Life>; CALLS],
    done: [u8; CALLS],
    askers: [Step; ASKERS],
    /// A write whose host is no more.
    ghost: Option<Step>,
    expired: u8,
    left: Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Ask(usize),
    Run(Life, End),
    Apply(Life),
    GhostArrives,
    ForgetPlace(Life),
    ForgetAnswer(Life),
    // Faults from here on.
    /// Whoever finishes a commit that was finished stores its answer again.
    ApplyAgain(Life),
    Crash(usize),
    CrashLeavingGhost(usize),
    KeyExpires,
}

impl Fault for Action {
    fn is_fault(&self) -> bool {
        use Action::*;
        // Time need not pass.
        matches!(
            self,
            ApplyAgain(_) | Crash(_) | CrashLeavingGhost(_) | KeyExpires | ForgetPlace(_) | ForgetAnswer(_)
        )
    }
}

impl Calls {
    pub fn sound(faults: Faults) -> Calls {
        Calls {
            compared: true,
            after_its_answer: true,
            apart: true,
            inbox_outlives: true,
            answers_outlive: true,
            faults,
        }
    }

    fn step(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Ask(a) => s.askers[a] = self.ask(s, s.askers[a])?,
            Action::Run(at, end) => {
                let place = s.at(at);
                if !place.stored || place.committed.is_some() {
                    return None;
                }
                place.committed = Some(end);
                s.done[at.call] += u8::from(end == End::Ok);
            }
            Action::Apply(at) => {
                let place = s.at(at);
                if place.committed.is_none() || place.applied {
                    return None;
                }
                (place.answered, place.applied) = (true, true);
                s.last[at.call] = Some(at);
            }
            Action::ApplyAgain(at) => {
                if !s.at(at).applied {
                    return None;
                }
                spend(&mut s.left.again)?;
                s.last[at.call] = Some(at);
            }
            Action::GhostArrives => {
                let ghost = s.ghost.take()?;
                self.ask(s, ghost)?;
            }
            Action::Crash(a) if !matches!(s.askers[a], Step::Look | Step::Told(..)) => {
                spend(&mut s.left.crashes)?;
                s.askers[a] = Step::Look;
            }
            Action::CrashLeavingGhost(a) => {
                let ghost = s.askers[a];
                if !matches!(ghost, Step::Write(..) | Step::Store(_)) || s.ghost.is_some() {
                    return None;
                }
                spend(&mut s.left.ghosts)?;
                (s.ghost, s.askers[a]) = (Some(ghost), Step::Look);
            }
            Action::KeyExpires => {
                s.key?;
                spend(&mut s.left.leases)?;
                s.key = None;
                s.expired += 1;
            }
            Action::ForgetPlace(at) => {
                // It is acked, and nobody is about to store it who has looked at its key in time.
                let settled = s.at(at).stored && s.at(at).applied;
                if !settled || (self.inbox_outlives && s.is_in_hand(at)) {
                    return None;
                }
                spend(&mut s.left.windows)?;
                let place = s.at(at);
                (place.stored, place.committed, place.applied) = (false, None, false);
            }
            Action::ForgetAnswer(at) => {
                if !s.at(at).answered || (self.answers_outlive && s.is_in_hand(at)) {
                    return None;
                }
                spend(&mut s.left.windows)?;
                s.at(at).answered = false;
            }
            _ => return None,
        }
        Some(())
    }

    /// What a host does next for its client.
    fn ask(&self, s: &mut State, step: Step) -> Option<Step> {
        Some(match step {
            Step::Look => match s.key {
                Some(at) => Step::Read(at),
                None => Step::Write(None),
            },
            Step::Read(at) => match self.answer(s, at) {
                Some((_, End::Ok)) => Step::Told(at, End::Ok),
                Some((_, End::Passing)) => next(at),
                None if self.after_its_answer => Step::Store(at),
                // It takes long: perhaps it is lost.
                None => next(at),
            },
            Step::Write(seen) => {
                if self.compared && s.key != seen {
                    return Some(Step::Look);
                }
                // Nobody has had the id of a call that begins.
                let at = seen.map_or(Life { call: s.calls, life: 0 }, |at| Life { life: at.life + 1, ..at });
                if at.call >= CALLS {
                    return None;
                }
                s.key = Some(at);
                s.calls = s.calls.max(at.call + 1);
                Step::Store(at)
            }
            Step::Store(at) => {
                s.at(at).stored = true;
                Step::Wait(at)
            }
            Step::Wait(at) => match self.answer(s, at)? {
                (at, End::Ok) => Step::Told(at, End::Ok),
                // The client asks again, or has enough.
                (at, End::Passing) if at.life + 1 < LIVES => Step::Look,
                (at, End::Passing) => Step::Told(at, End::Passing),
            },
            Step::Told(..) => return None,
        })
    }

    /// What is found where the answer to this life is to be.
    fn answer(&self, s: &State, at: Life) -> Option<(Life, End)> {
        let found = if self.apart { at } else { s.last[at.call]? };
        let place = &s.places[found.call][found.life];
        let answered = place.answered || !self.apart;
        Some((found, place.committed.filter(|_| answered)?))
    }

    /// Everybody was told, and nothing waits.
    pub fn at_rest(&self, s: &State) -> bool {
        let told = s.askers.iter().all(|step| matches!(step, Step::Told(..)));
        let over = s.places.iter().flatten().all(|place| !place.stored || place.applied);
        told && over && s.ghost.is_none()
    }
}

impl State {
    fn at(&mut self, at: Life) -> &mut Place {
        &mut self.places[at.call][at.life]
    }

    /// The key names it, or whoever looked at the key a moment ago has it in hand.
    fn is_in_hand(&self, at: Life) -> bool {
        let holds = |step: &Step| match step {
            Step::Read(life) | Step::Store(life) | Step::Wait(life) => *life == at,
            Step::Write(seen) => *seen == Some(at),
            Step::Look | Step::Told(..) => false,
        };
        self.key == Some(at) || self.askers.iter().chain(&self.ghost).any(holds)
    }
}

/// The life after one, if there is another.
fn next(at: Life) -> Step {
    match at.life + 1 {
        life if life < LIVES => Step::Write(Some(at)),
        _ => Step::Told(at, End::Passing),
    }
}

pub const ONCE: &str = "a call is done once";
pub const NOT_IN_VAIN: &str = "nobody waits for an answer that is gone";
pub const ONE_CALL: &str = "a key stands for another call only after it expired";

impl Model for Calls {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            key: None,
            calls: 0,
            places: Default::default(),
            last: [None; CALLS],
            done: [0; CALLS],
            askers: [Step::Look; ASKERS],
            ghost: None,
            expired: 0,
            left: self.faults,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        for call in 0..CALLS {
            for life in 0..LIVES {
                let at = Life { call, life };
                actions.extend([Run(at, End::Ok), Run(at, End::Passing), Apply(at), ApplyAgain(at)]);
                actions.extend([ForgetPlace(at), ForgetAnswer(at)]);
            }
        }
        for a in 0..ASKERS {
            actions.extend([Ask(a), Crash(a), CrashLeavingGhost(a)]);
        }
        actions.extend([GhostArrives, KeyExpires]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action)?;
        state.askers.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, s: &State| s.done.iter().all(|done| *done <= 1)),
            Property::always(ONE_CALL, |_, s: &State| s.calls <= usize::from(s.expired) + 1),
            Property::always(NOT_IN_VAIN, |_, s: &State| {
                let gone = |at: Life| {
                    let place = s.places[at.call][at.life];
                    place.applied && !place.answered
                };
                !s.askers.iter().any(|step| matches!(step, Step::Wait(at) if gone(*at)))
            }),
            Property::sometimes("a repeat is told what the first was", |_, s: &State| {
                s.askers[0] == s.askers[1] && matches!(s.askers[0], Step::Told(_, End::Ok))
            }),
            Property::sometimes("a call is done in its second life", |_, s: &State| {
                s.done[0] == 1 && s.places[0][1].committed == Some(End::Ok)
            }),
            Property::sometimes("a key that expired stands for another call", |_, s: &State| {
                s.done == [1, 1]
            }),
        ]
    }
}
