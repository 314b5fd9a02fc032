//! What can be wrong with a machine: each fault names the thing, and what to do.

use std::collections::BTreeSet;

use super::{ANY, ASSIGN, End, Machine, SYSTEM, Step};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the machine can't be read: {0}")]
    Unreadable(String),
    #[error("the {kind} {name:?} is there twice; remove one")]
    Twice { kind: &'static str, name: String },
    #[error("{kind} {name:?} must be lower case, with _ between words; write {wanted:?}")]
    Spelling { kind: &'static str, name: String, wanted: String },
    #[error("{place} names the state {name:?}, which is not among the states; add it, or correct the name")]
    UnknownState { place: String, name: String },
    #[error("{place} names the role {name:?}, which is not among the roles; add it, or correct the name")]
    UnknownRole { place: String, name: String },
    #[error("{place} names the action {name:?}, which no move has; add a move, or correct the name")]
    UnknownAction { place: String, name: String },
    #[error("{place} needs {action:?} by \"system\" in the state {state:?}, which no move allows; add one")]
    NotPossible { place: String, action: String, state: String },
    #[error("no move leads to the state {0:?}; add one, or remove the state")]
    Unreachable(String),
    #[error("the state {0:?} is no end, and no moves lead from it to one; add a move, or say how it ends")]
    DeadEnd(String),
    #[error("the state {0:?} is an end (`ends`), and the move {1:?} leaves it; remove one of the two")]
    LeavesEnd(String, String),
    #[error("two moves are called {action:?} and leave {state:?} by {role:?}; a task can go one way only")]
    Ambiguous { action: String, state: String, role: String },
    #[error("the automatic moves from {0:?} come back to it; a task would never rest")]
    Restless(String),
    #[error("no state ends with \"done\"; a story would never be complete")]
    NothingDone,
}

impl Machine {
    /// All of them, so that a person can mend them at one time.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.names(&mut faults);
        self.references(&mut faults);
        if faults.is_empty() {
            self.ways(&mut faults);
        }
        faults
    }

    fn names(&self, faults: &mut Vec<Fault>) {
        let roles = self.roles.iter().flat_map(|role| [&role.name].into_iter().chain(&role.aliases));
        let states = self.states.iter().map(|state| &state.name);
        for (kind, names) in [("role", roles.collect::<Vec<_>>()), ("state", states.collect())] {
            let mut seen = BTreeSet::new();
            for name in names {
                if !seen.insert(name) {
                    faults.push(Fault::Twice { kind, name: name.clone() });
                }
                spelled(kind, name, faults);
            }
        }
        for row in &self.moves {
            for name in [&row.action].into_iter().chain(&row.aliases) {
                spelled("action", name, faults);
            }
        }
    }

    fn references(&self, faults: &mut Vec<Fault>) {
        let mut state = |place: &str, name: &str| {
            if self.state(name).is_none() {
                faults.push(Fault::UnknownState { place: place.into(), name: name.into() });
            }
        };
        state("`initial`", &self.initial);
        for row in &self.moves {
            let place = format!("the move {:?}", row.action);
            row.from.iter().filter(|from| *from != ANY).for_each(|from| state(&place, from));
            state(&place, &row.to);
        }
        let named = |name: &str| self.roles.iter().any(|role| role.name == name);
        let mut role = |place: &str, name: &str| {
            if !named(name) {
                faults.push(Fault::UnknownRole { place: place.into(), name: name.into() });
            }
        };
        for row in &self.moves {
            row.by.iter().for_each(|by| role(&format!("the move {:?}", row.action), by));
        }
        for state in &self.states {
            if let Some(duty) = &state.duty {
                role(&format!("the state {:?}", state.name), &duty.role);
            }
        }
        let mut action = |place: String, name: &str| {
            if !self.moves.iter().any(|row| row.action == name) {
                faults.push(Fault::UnknownAction { place, name: name.into() });
            }
        };
        for state in &self.states {
            if let Some(duty) = &state.duty {
                action(format!("the state {:?}", state.name), &duty.action);
            }
        }
        for row in &self.moves {
            if let Some(then) = &row.then {
                action(format!("the move {:?}", row.action), then);
            }
        }
    }

    fn ways(&self, faults: &mut Vec<Fault>) {
        if !self.states.iter().any(|state| state.ends == Some(End::Done)) {
            faults.push(Fault::NothingDone);
        }
        self.possible("`initial`".to_owned(), ASSIGN, &self.initial, faults);
        for row in &self.moves {
            if let Some(then) = &row.then {
                self.possible(format!("the move {:?}", row.action), then, &row.to, faults);
            }
        }
        let reached = self.closure(&self.initial, |_| true);
        for state in &self.states {
            let name = &state.name;
            if !reached.contains(name.as_str()) {
                faults.push(Fault::Unreachable(name.clone()));
            }
            if state.ends.is_some() {
                let leaving = self.moves.iter().find(|row| row.from.contains(name));
                faults.extend(leaving.map(|row| Fault::LeavesEnd(name.clone(), row.action.clone())));
            } else if !self.ends_from(name) {
                faults.push(Fault::DeadEnd(name.clone()));
            }
            self.ambiguous(name, faults);
            if self.is_restless(name) {
                faults.push(Fault::Restless(name.clone()));
            }
        }
    }

    /// What the plugin does as the system has to lead somewhere.
    fn possible(&self, place: String, action: &str, state: &str, faults: &mut Vec<Fault>) {
        if !matches!(self.step(state, action, SYSTEM), Step::Moves(_)) {
            let (action, state) = (action.to_owned(), state.to_owned());
            faults.push(Fault::NotPossible { place, action, state });
        }
    }

    /// Without what may happen to any task: to cancel is no way on.
    fn ends_from(&self, state: &str) -> bool {
        let on = self.closure(state, |row| !row.from.iter().any(|from| from == ANY));
        self.states.iter().any(|end| end.ends.is_some() && on.contains(end.name.as_str()))
    }

    fn closure(&self, from: &str, counts: impl Fn(&super::Move) -> bool) -> BTreeSet<&str> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(state) = waiting.pop() {
            for row in self.moves.iter().filter(|row| counts(row) && self.leaves(row, &state)) {
                if reached.insert(row.to.as_str()) {
                    waiting.push(row.to.clone());
                }
            }
        }
        if let Some(state) = self.state(from) {
            reached.insert(state.name.as_str());
        }
        reached
    }

    fn ambiguous(&self, state: &str, faults: &mut Vec<Fault>) {
        let mut seen = BTreeSet::new();
        for row in self.moves.iter().filter(|row| self.leaves(row, state)) {
            for role in &row.by {
                if !seen.insert((&row.action, role)) {
                    let (action, role) = (row.action.clone(), role.clone());
                    faults.push(Fault::Ambiguous { action, state: state.to_owned(), role });
                }
            }
        }
    }

    fn is_restless(&self, state: &str) -> bool {
        let mut at = state;
        for _ in 0..=self.states.len() {
            match self.automatic(at) {
                Some(row) => at = &row.to,
                None => return false,
            }
        }
        true
    }
}

fn spelled(kind: &'static str, name: &str, faults: &mut Vec<Fault>) {
    let wanted = super::folded(name);
    if name != wanted || name.is_empty() || name == ANY {
        faults.push(Fault::Spelling { kind, name: name.to_owned(), wanted });
    }
}
