//! What can be wrong with a machine: each fault names the thing, and what to do.

use std::collections::BTreeSet;

use super::{Machine, folded, trigger};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the machine can't be read: {0}")]
    Unreadable(String),
    #[error("{place} names {name:?} twice; remove one")]
    Twice { place: String, name: String },
    #[error("{kind} {name:?} must be upper case, with _ between words; write {wanted:?}")]
    Spelling { kind: &'static str, name: String, wanted: String },
    #[error("{place} names the state {name:?}, which is not among the states; add it, or correct the name")]
    UnknownState { place: String, name: String },
    #[error(
        "the state {state:?} has the trigger {name:?}, which does not exist; there are {derived:?}, {through:?} and, with a \
         task's state, \"workflow.state.changed:implementing\"",
        derived = trigger::DERIVED,
        through = trigger::THROUGH
    )]
    UnknownTrigger { state: String, name: String },
    #[error(
        "the trigger {name:?} leads from {state:?} to {to:?}, which is not among its `next`; add it there, or correct the name"
    )]
    Leap { state: String, name: String, to: String },
    #[error("the trigger {name:?} leads from {state:?} back to it; a story would never rest")]
    Restless { state: String, name: String },
    #[error("the state {0:?} is its own `next`; remove it there")]
    ToItself(String),
    #[error("no way leads to the state {0:?}; add it to a `next`, or remove the state")]
    Unreachable(String),
    #[error(
        "the state {0:?} is no end, and no way leads from it to one; add to its `next`, or say that it `ends`"
    )]
    DeadEnd(String),
    #[error("the state {0:?} `ends`, and has a `next`; remove one of the two")]
    LeavesEnd(String),
}

impl Machine {
    /// All of them, so that a person can mend them at one time.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.spelling(&mut faults);
        self.references(&mut faults);
        if faults.is_empty() {
            self.ways(&mut faults);
        }
        faults
    }

    fn spelling(&self, faults: &mut Vec<Fault>) {
        twice("the machine", self.names(), faults);
        for state in &self.states {
            twice(&format!("the `next` of {:?}", state.name), state.next.iter().map(String::as_str), faults);
            for (kind, name) in [("the state", &state.name), ("the phase", &state.phase)] {
                let wanted = folded(name);
                if *name != wanted || name.is_empty() {
                    faults.push(Fault::Spelling { kind, name: name.clone(), wanted });
                }
            }
        }
    }

    fn references(&self, faults: &mut Vec<Fault>) {
        let mut known = |place: String, name: &str| {
            let there = self.state(name).is_some();
            if !there {
                faults.push(Fault::UnknownState { place, name: name.into() });
            }
        };
        known("`initial`".into(), &self.initial);
        if let Some(reset) = &self.reset {
            known("`reset`".into(), reset);
        }
        for state in &self.states {
            for next in &state.next {
                known(format!("the `next` of {:?}", state.name), next);
            }
        }
        for state in &self.states {
            for (name, to) in &state.triggers {
                let (state, name, to) = (state.name.clone(), name.clone(), to.clone());
                if !trigger::is_known(&name) {
                    faults.push(Fault::UnknownTrigger { state, name });
                } else if !self.next(&state).contains(&to) {
                    faults.push(Fault::Leap { state, name, to });
                }
            }
        }
    }

    fn ways(&self, faults: &mut Vec<Fault>) {
        let reached: BTreeSet<&str> =
            [&self.initial].into_iter().chain(&self.reset).flat_map(|state| self.from(state)).collect();
        for state in &self.states {
            let name = &state.name;
            if !reached.contains(name.as_str()) {
                faults.push(Fault::Unreachable(name.clone()));
            }
            if state.next.contains(name) {
                faults.push(Fault::ToItself(name.clone()));
            }
            match (state.ends, state.next.is_empty()) {
                (true, false) => faults.push(Fault::LeavesEnd(name.clone())),
                (false, _) if !self.from(name).iter().any(|to| self.state(to).is_some_and(|to| to.ends)) => {
                    faults.push(Fault::DeadEnd(name.clone()));
                }
                _ => {}
            }
            for trigger in state.triggers.keys() {
                if self.walk(name, trigger).contains(&name.as_str()) {
                    faults.push(Fault::Restless { state: name.clone(), name: trigger.clone() });
                }
            }
        }
    }

    /// A state and all that may come after it, without the reset: to begin again is no way on.
    fn from<'a>(&'a self, state: &'a str) -> BTreeSet<&'a str> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![state]);
        while let Some(state) = waiting.pop() {
            if reached.insert(state) {
                waiting.extend(self.next(state).iter().map(String::as_str));
            }
        }
        reached
    }
}

fn twice<'a>(place: &str, names: impl Iterator<Item = &'a str>, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for name in names.filter(|name| !seen.insert(*name)) {
        faults.push(Fault::Twice { place: place.into(), name: name.into() });
    }
}
