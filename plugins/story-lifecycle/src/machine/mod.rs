//! The state machine of a story, as data: which states there are, in which agile phase each is, what may follow, and what makes
//! a story go on by itself. [`standard.json`](standard.json) is the fleet's; a team may bring its own. Moving a story is `story`'s
//! business.

mod check;

use std::collections::BTreeMap;

use cofferdam_sdk::fleet::{DerivationCompleted, Outgoing, StateChanged, StoryTasksCompleted};
use serde::Deserialize;

pub(crate) use check::Fault;

const STANDARD: &str = include_str!("standard.json");

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// Where a story begins that says nothing else.
    initial: String,
    /// Where it may be brought from everywhere.
    reset: Option<String>,
    states: Vec<State>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    #[serde(rename = "state")]
    name: String,
    /// The agile phase, for readers that want no more than that.
    phase: String,
    /// The states that may follow.
    next: Vec<String>,
    /// What makes the story go on, and where to: a subject, for `workflow.state.changed` with a task's state behind a colon.
    #[serde(default)]
    triggers: BTreeMap<String, String>,
    /// Whoever hears of a story that comes here needs its tasks.
    #[serde(default)]
    needs_tasks: bool,
    /// The story is over here.
    #[serde(default)]
    ends: bool,
}

/// What may make a story go on.
pub(crate) mod trigger {
    use super::*;

    pub(crate) const DERIVED: &str = DerivationCompleted::SUBJECT;
    pub(crate) const THROUGH: &str = StoryTasksCompleted::SUBJECT;

    /// A task of the story comes into this state.
    pub(crate) fn task_enters(state: &str) -> String {
        format!("{}:{}", StateChanged::SUBJECT, state.trim().to_ascii_lowercase())
    }

    pub(super) fn is_known(name: &str) -> bool {
        let task_state = name.strip_prefix(StateChanged::SUBJECT).and_then(|rest| rest.strip_prefix(':'));
        matches!(name, DERIVED | THROUGH)
            || task_state.is_some_and(|state| task_enters(state) == name && !state.is_empty())
    }
}

impl Machine {
    /// The fleet's own.
    pub(crate) fn standard() -> Result<Self, Vec<Fault>> {
        Self::read(STANDARD)
    }

    pub(crate) fn read(text: &str) -> Result<Self, Vec<Fault>> {
        let machine: Self =
            serde_json::from_str(text).map_err(|error| vec![Fault::Unreadable(error.to_string())])?;
        let faults = machine.faults();
        if faults.is_empty() { Ok(machine) } else { Err(faults) }
    }

    pub(crate) fn initial(&self) -> &str {
        &self.initial
    }

    pub(crate) fn reset(&self) -> Option<&str> {
        self.reset.as_deref()
    }

    /// The state of this name, whichever way it is written.
    pub(crate) fn name(&self, name: &str) -> Option<&str> {
        self.state(&folded(name)).map(|state| state.name.as_str())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.states.iter().map(|state| state.name.as_str())
    }

    /// Empty for a state that the machine does not have.
    pub(crate) fn phase(&self, state: &str) -> &str {
        self.state(state).map_or("", |state| &state.phase)
    }

    pub(crate) fn needs_tasks(&self, state: &str) -> bool {
        self.state(state).is_some_and(|state| state.needs_tasks)
    }

    /// What may follow, without the reset.
    pub(crate) fn next(&self, state: &str) -> &[String] {
        self.state(state).map_or(&[], |state| &state.next)
    }

    pub(crate) fn may_go(&self, from: &str, to: &str) -> bool {
        self.reset() == Some(to) || self.next(from).iter().any(|next| next == to)
    }

    /// The states that a trigger leads through, one after the other, for as long as it is heeded.
    pub(crate) fn walk(&self, from: &str, trigger: &str) -> Vec<&str> {
        let mut way: Vec<&str> = Vec::new();
        while let Some(to) = self.on(way.last().unwrap_or(&from), trigger)
            // A machine without faults has no such circle.
            && way.len() < self.states.len()
        {
            way.push(to);
        }
        way
    }

    /// Whether any state goes on by it.
    pub(crate) fn heeds(&self, trigger: &str) -> bool {
        self.states.iter().any(|state| state.triggers.contains_key(trigger))
    }

    /// The state that goes on by it, if there is but one.
    pub(crate) fn only_on(&self, trigger: &str) -> Option<&str> {
        let mut on = self.states.iter().filter(|state| state.triggers.contains_key(trigger));
        on.next().filter(|_| on.next().is_none()).map(|state| state.name.as_str())
    }

    fn on(&self, state: &str, trigger: &str) -> Option<&str> {
        self.state(state)?.triggers.get(trigger).map(String::as_str)
    }

    fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|state| state.name == name)
    }
}

/// As names are in the table.
pub(crate) fn folded(name: &str) -> String {
    name.trim().to_ascii_uppercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests;
