//! From a model's text to tasks, as one pure function: the steps of the fleet's contract in their order. The steps
//! themselves live in their own files.

use std::fmt;

use cofferdam_sdk::fleet::{Dropped, ParsedTask, Rejection as Kind};

use crate::{batch, blocks, clean, entry::Entry, fields, json, markdown};

/// What the operator and the request decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Fewer tasks are accepted with a warning.
    pub min_tasks: usize,
    /// More tasks are rejected.
    pub max_tasks: usize,
    /// Longer estimates are cut to this.
    pub max_hours: i32,
    /// The requested roles, any alias; the first that a task may have stands in for a missing one.
    pub roles: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_tasks: 3, max_tasks: 8, max_hours: 40, roles: Vec::new() }
    }
}

impl Settings {
    pub(crate) fn fallback_role(&self) -> &'static str {
        let mut roles = self.roles.iter().filter_map(|role| fields::role(&role.as_str().into()));
        roles.next().unwrap_or(fields::DEFAULT_ROLE)
    }
}

/// The tasks of an answer, normalised. A task's `reference` is the id that the model gave, else its title; an id given
/// twice means the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub tasks: Vec<ParsedTask>,
    pub dropped: Vec<Dropped>,
    pub warnings: Vec<String>,
    pub below_min: bool,
}

/// Why an answer is no use.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub kind: Kind,
    pub detail: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

/// Reads the tasks in a model's text. Never panics, takes time linear in the text, and bounded stack.
pub fn parse(text: &str, settings: &Settings) -> Result<Parsed, Rejection> {
    let text = clean::clean(text);
    let entries = entries(&text);
    if !entries.iter().any(Entry::has_title) && json::is_truncated(&text) {
        let detail = "the JSON breaks off: an array or object with a title is never closed".into();
        return Err(Rejection { kind: Kind::TruncatedJson, detail });
    }
    batch::settle(entries, settings)
}

/// What the first reader that finds a titled task finds; else untitled entries, if there are any.
fn entries(text: &str) -> Vec<Entry> {
    let mut untitled = Vec::new();
    for read in [json::entries, blocks::entries, markdown::entries] {
        let found = read(text);
        if found.iter().any(Entry::has_title) {
            return found;
        }
        if untitled.is_empty() {
            untitled = found;
        }
    }
    untitled
}
