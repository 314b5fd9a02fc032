//! The state machine of a task, as data: what leads where, by whom, under which condition; who is in charge of a state, and
//! what is to be done there. [`standard.json`](standard.json) is the fleet's; a team may bring its own. Applying it to a task
//! is `task`'s business.

mod check;

use serde::{Deserialize, Serialize};

pub(crate) use check::Fault;

const STANDARD: &str = include_str!("standard.json");
/// As a move's `from`: every state that is no end.
const ANY: &str = "*";
/// What brings a task to its first owner. Every table has it.
pub(crate) const ASSIGN: &str = "assign_to_developer";
/// Who moves a task where nobody does.
pub(crate) const SYSTEM: &str = "system";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// Where a task begins.
    initial: String,
    roles: Vec<Role>,
    states: Vec<State>,
    moves: Vec<Move>,
}

/// Who may move a task; any of its names is understood, in any case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) name: String,
    /// What somebody owes a task here; nobody where there is none.
    pub(crate) duty: Option<Duty>,
    /// Whoever is in charge is told as soon as a task comes here.
    #[serde(default)]
    pub(crate) assigns: bool,
    /// Whoever is in charge gets the feedback for which it came back.
    #[serde(default)]
    pub(crate) rework: bool,
    /// What is to be validated here: `design`, `tests`, `story`.
    pub(crate) validates: Option<String>,
    /// A task that rests here for so long is told of.
    pub(crate) alert_after_seconds: Option<u64>,
    /// The task is over here.
    pub(crate) ends: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Done,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Duty {
    pub(crate) role: String,
    /// The action that is to follow.
    pub(crate) action: String,
    /// Under which the task is assigned.
    pub(crate) label: String,
}

/// One row: from, action, by whom, to. What no row says is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    from: Vec<String>,
    pub(crate) action: String,
    /// Other names of the action.
    #[serde(default)]
    aliases: Vec<String>,
    by: Vec<String>,
    pub(crate) to: String,
    pub(crate) guard: Option<Guard>,
    /// What becomes of the task's feedback.
    pub(crate) feedback: Option<Feedback>,
    /// Taken without being asked for, once its state is reached.
    #[serde(default)]
    automatic: bool,
    /// Whoever does it holds the task. Where it leads nowhere, it is noted and not told.
    #[serde(default)]
    pub(crate) claims: bool,
    /// Done on the way, where the action that is asked for comes after it.
    #[serde(default)]
    implied: bool,
    /// Whoever is in charge of where it leads is told.
    #[serde(default)]
    pub(crate) assigns: bool,
    /// Counts as another try of the task.
    #[serde(default)]
    pub(crate) retries: bool,
    /// What the system does after it.
    then: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guard {
    /// Says why, in ten characters or more.
    Feedback,
    /// Names a commit, if it names artifacts at all.
    CommitSha,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Feedback {
    Keep,
    Clear,
}

/// What an action by a role amounts to in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// One after the other: a move that is implied comes first.
    Moves(Vec<&'a Move>),
    /// Nobody of this role does that, in no state.
    NotTheirs,
    /// Not in this state.
    NotHere,
}

impl<'a> Step<'a> {
    fn moves(self) -> Option<Vec<&'a Move>> {
        match self {
            Self::Moves(moves) => Some(moves),
            Self::NotTheirs | Self::NotHere => None,
        }
    }
}

impl Machine {
    /// The fleet's own. It is not looked through for faults: a test does that once.
    pub(crate) fn standard() -> Result<Self, Vec<Fault>> {
        serde_json::from_str(STANDARD).map_err(|error| vec![Fault::Unreadable(error.to_string())])
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

    pub(crate) fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|state| state.name == name)
    }

    /// What somebody owes a task in a state.
    pub(crate) fn duty(&self, state: &str) -> Option<&Duty> {
        self.state(state)?.duty.as_ref()
    }

    /// Who is in charge of a state, if anybody is.
    pub(crate) fn in_charge(&self, state: &str) -> Option<&str> {
        Some(&self.duty(state)?.role)
    }

    /// How a task in a state has ended, if it has.
    pub(crate) fn end(&self, state: &str) -> Option<End> {
        self.state(state)?.ends
    }

    /// Their names.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| role.name.as_str())
    }

    /// The role of this name or alias.
    pub(crate) fn role(&self, name: &str) -> Option<&str> {
        let name = folded(name);
        let role = self.roles.iter().find(|role| role.name == name || role.aliases.contains(&name));
        role.map(|role| role.name.as_str())
    }

    /// The action of this name or alias.
    pub(crate) fn action(&self, name: &str) -> Option<&str> {
        let name = folded(name);
        let found = self.moves.iter().find(|row| row.action == name || row.aliases.contains(&name));
        found.map(|row| row.action.as_str())
    }

    /// What has to hold for an action, wherever it is done.
    pub(crate) fn guard(&self, action: &str) -> Option<Guard> {
        self.moves.iter().filter(|row| row.action == action).find_map(|row| row.guard)
    }

    /// Whether the action is this role's, in whatever state.
    pub(crate) fn is_by(&self, action: &str, role: &str) -> bool {
        self.moves.iter().any(|row| row.action == action && row.by.iter().any(|by| by == role))
    }

    /// Where an action by a role leads from a state.
    pub(crate) fn step(&self, state: &str, action: &str, role: &str) -> Step<'_> {
        let theirs = |row: &&Move| row.by.iter().any(|by| by == role);
        let of_action = || self.moves.iter().filter(|row| row.action == action);
        if !self.is_by(action, role) {
            return Step::NotTheirs;
        }
        let direct = |from: &str| of_action().filter(theirs).find(|row| self.leaves(row, from));
        if let Some(row) = direct(state) {
            return Step::Moves(vec![row]);
        }
        let implied = self.moves.iter().filter(|row| row.implied && self.leaves(row, state)).filter(theirs);
        for first in implied {
            if let Some(then) = direct(&first.to) {
                return Step::Moves(vec![first, then]);
            }
        }
        Step::NotHere
    }

    /// What the system does after a move, where the table says that it does something.
    pub(crate) fn after(&self, row: &Move) -> Vec<&Move> {
        let step = row.then.as_ref().map(|then| self.step(&row.to, then, SYSTEM));
        step.and_then(Step::moves).unwrap_or_default()
    }

    /// How a role takes a task of a state for one of its own, where that is a move.
    pub(crate) fn claim(&self, state: &str, role: &str) -> Option<&Move> {
        let claims = |row: &&Move| row.claims && row.by.iter().any(|by| by == role);
        self.moves.iter().filter(claims).find(|row| self.leaves(row, state))
    }

    /// Whose a task is as soon as it is assigned.
    pub(crate) fn first_owner(&self) -> Option<&str> {
        let moves = self.step(&self.initial, ASSIGN, SYSTEM).moves()?;
        self.in_charge(&moves.last()?.to)
    }

    /// What happens by itself in a state.
    pub(crate) fn automatic(&self, state: &str) -> Option<&Move> {
        self.moves.iter().find(|row| row.automatic && self.leaves(row, state))
    }

    fn leaves(&self, row: &Move, state: &str) -> bool {
        row.from.iter().any(|from| match from.as_str() {
            ANY => self.state(state).is_some_and(|state| state.ends.is_none()),
            from => from == state,
        })
    }
}

/// As names are in the table.
fn folded(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests;
