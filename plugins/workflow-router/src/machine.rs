//! The state machine of a task, as data: what leads where, who is in charge of a state, and what is to be done there.
//! It holds the rows that the plugin acts on; applying them to a task is `task`'s business.

use serde::{Deserialize, Serialize};

/// Where a task stands; the names are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Todo,
    Implementing,
}

/// What moves a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    AssignToDeveloper,
}

/// Who moves it, or is to move it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Actor {
    System,
    Developer,
}

/// From, action, by whom, to. What is not listed is not allowed.
const TRANSITIONS: &[(State, Action, Actor, State)] =
    &[(State::Todo, Action::AssignToDeveloper, Actor::System, State::Implementing)];

/// State, its name, who is in charge, the action that is to follow, and the label under which it is assigned the first
/// time. States that nobody is in charge of are not assigned.
const STATES: &[(State, &str, Option<Duty>)] = &[
    (State::Todo, "todo", None),
    (
        State::Implementing,
        "implementing",
        Some(Duty { role: Actor::Developer, action: "commit_code", label: "IMPLEMENT_FEATURE" }),
    ),
];

/// What somebody owes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duty {
    pub(crate) role: Actor,
    pub(crate) action: &'static str,
    pub(crate) label: &'static str,
}

impl State {
    fn row(self) -> &'static (State, &'static str, Option<Duty>) {
        STATES.iter().find(|(state, ..)| *state == self).unwrap_or(&STATES[0])
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn duty(self) -> Option<Duty> {
        self.row().2
    }
}

impl Action {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AssignToDeveloper => "assign_to_developer",
        }
    }
}

impl Actor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
        }
    }
}

/// Where an action by somebody leads from a state; nothing if it is not allowed.
pub(crate) fn next(from: State, action: Action, actor: Actor) -> Option<State> {
    TRANSITIONS.iter().find(|(f, a, who, _)| (*f, *a, *who) == (from, action, actor)).map(|(.., to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_moves_are_allowed() {
        assert_eq!(next(State::Todo, Action::AssignToDeveloper, Actor::System), Some(State::Implementing));
        assert_eq!(next(State::Todo, Action::AssignToDeveloper, Actor::Developer), None);
        assert_eq!(next(State::Implementing, Action::AssignToDeveloper, Actor::System), None);
    }

    #[test]
    fn stored_names_are_the_wires_names() {
        for (state, name, _) in STATES {
            assert_eq!(serde_json::to_value(state).unwrap(), *name);
        }
        assert_eq!(
            serde_json::to_value(Action::AssignToDeveloper).unwrap(),
            Action::AssignToDeveloper.name()
        );
    }
}
