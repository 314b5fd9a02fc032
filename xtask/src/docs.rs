//! `cargo xtask docs`: the page of the state machines, drawn from the very tables that the plugins go by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::repo::Repo;
use crate::{stamps, terminal};

const PAGE: &str = "docs/state-machines.md";
const TASKS: &str = "plugins/workflow-router/src/machine/standard.json";
const STORIES: &str = "plugins/story-lifecycle/src/machine/standard.json";

const HEAD: &str = "\
<!-- Made by `cargo xtask docs` from the tables of the plugins. Change those, and run it again. -->

# State machines

What tasks and stories go through, from the tables that the plugins themselves go by. A team with states of its own replaces a table by
the plugin's config `machine`; a table with a fault (a state that nothing leads to, one that leads nowhere, a name that is not there) is
refused, and the message names it.
";

/// The table of workflow-router, as far as it is drawn.
#[derive(Debug, Deserialize)]
struct Tasks {
    initial: String,
    states: Vec<TaskState>,
    moves: Vec<Move>,
}

#[derive(Debug, Deserialize)]
struct TaskState {
    name: String,
    duty: Option<Duty>,
    validates: Option<String>,
    alert_after_seconds: Option<u64>,
    ends: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Duty {
    role: String,
    action: String,
}

#[derive(Debug, Deserialize)]
struct Move {
    from: Vec<String>,
    action: String,
    #[serde(default)]
    aliases: Vec<String>,
    by: Vec<String>,
    to: String,
    guard: Option<String>,
    #[serde(default)]
    automatic: bool,
    #[serde(default)]
    implied: bool,
    then: Option<String>,
}

/// The table of story-lifecycle.
#[derive(Debug, Deserialize)]
struct Stories {
    initial: String,
    reset: Option<String>,
    states: Vec<StoryState>,
}

#[derive(Debug, Deserialize)]
struct StoryState {
    state: String,
    phase: String,
    next: Vec<String>,
    #[serde(default)]
    triggers: BTreeMap<String, String>,
    #[serde(default)]
    needs_tasks: bool,
    #[serde(default)]
    ends: bool,
}

pub(crate) fn run(repo: &Repo) -> Result<()> {
    let path = repo.root().join(PAGE);
    let page = page(repo)?;
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there == page {
        terminal::out(&format!("{PAGE} is up to date"));
        return Ok(());
    }
    stamps::write_whole(&path, page.as_bytes())?;
    terminal::out(&format!("{PAGE} is written"));
    Ok(())
}

fn page(repo: &Repo) -> Result<String> {
    let tasks: Tasks = table(repo.root().join(TASKS))?;
    let stories: Stories = table(repo.root().join(STORIES))?;
    Ok(format!("{HEAD}\n{}\n{}", tasks.section(), stories.section()))
}

fn table<T: for<'de> Deserialize<'de>>(path: PathBuf) -> Result<T> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no table that can be drawn", path.display()))
}

impl Tasks {
    fn section(&self) -> String {
        let mut out = format!(
            "## A task\n\n[workflow-router](../plugins/workflow-router/README.md) goes by [`standard.json`](../{TASKS}).\n\n"
        );
        let drawn = self.moves.iter().flat_map(|row| {
            let by = if row.automatic { "by itself".to_owned() } else { row.by.join(" or ") };
            row.from
                .iter()
                .filter(|from| *from != "*")
                .map(move |from| (from, &row.to, format!("{} ({by})", row.action)))
        });
        let ends = self.states.iter().filter(|state| state.ends.is_some()).map(|state| &state.name);
        out += &diagram(&self.initial, drawn, ends, std::iter::empty());
        out += "\nWhat leads from every state that is no end is not drawn; in the table it leads from *any*.\n\n";
        out += "| from | action | by | to | |\n|---|---|---|---|---|\n";
        for row in &self.moves {
            let from: Vec<&str> =
                row.from.iter().map(|from| if from == "*" { "*any*" } else { from }).collect();
            let also = row.aliases.iter().map(|alias| format!(", also {alias}")).collect::<String>();
            let by = if row.automatic { "itself".to_owned() } else { row.by.join(", ") };
            let guard = row.guard.as_deref().map(|guard| match guard {
                "feedback" => "with feedback".to_owned(),
                "commit_sha" => "with a commit_sha, if it names artifacts".to_owned(),
                other => format!("guarded by {other}"),
            });
            let remarks = [
                guard,
                row.implied.then(|| "implied by what follows".to_owned()),
                row.then.as_ref().map(|then| format!("then {then}")),
            ];
            let remarks = remarks.into_iter().flatten().collect::<Vec<_>>().join("; ");
            line(&mut out, &[&from.join(", "), &format!("{}{also}", row.action), &by, &row.to, &remarks]);
        }
        out += "\n| state | in charge | what is to be done | told of, if it waits for |\n|---|---|---|---|\n";
        for state in &self.states {
            let (role, action) =
                state.duty.as_ref().map_or(("", ""), |duty| (duty.role.as_str(), duty.action.as_str()));
            let validates =
                state.validates.as_ref().map(|what| format!(", on the {what}")).unwrap_or_default();
            let todo = match &state.ends {
                Some(_) => "nothing, it is over".to_owned(),
                None => format!("{action}{validates}"),
            };
            let alert = state.alert_after_seconds.map(spelled).unwrap_or_default();
            line(&mut out, &[&state.name, role, &todo, &alert]);
        }
        out
    }
}

impl Stories {
    fn section(&self) -> String {
        let mut out = format!(
            "## A story\n\n[story-lifecycle](../plugins/story-lifecycle/README.md) goes by [`standard.json`](../{STORIES}). The agile phase is in \
             brackets.\n\n"
        );
        let drawn = self.states.iter().flat_map(|state| {
            state.next.iter().map(|next| (&state.state, next, state.triggers_to(next).join(" or ")))
        });
        let ends = self.states.iter().filter(|state| state.ends).map(|state| &state.state);
        let called =
            self.states.iter().map(|state| (&state.state, format!("{} [{}]", state.state, state.phase)));
        out += &diagram(&self.initial, drawn, ends, called);
        if let Some(reset) = &self.reset {
            out += &format!("\nAny state may be reset to {reset}, which is not drawn.\n");
        }
        out += "\n| state | agile phase | next | by itself |\n|---|---|---|---|\n";
        for state in &self.states {
            let by_itself: Vec<String> = state
                .next
                .iter()
                .flat_map(|next| {
                    state.triggers_to(next).into_iter().map(move |trigger| format!("{trigger}: {next}"))
                })
                .collect();
            let next = if state.ends { "none, it is over".to_owned() } else { state.next.join(", ") };
            line(&mut out, &[&state.state, &state.phase, &next, &by_itself.join("; ")]);
        }
        let needing: Vec<&str> =
            self.states.iter().filter(|state| state.needs_tasks).map(|state| state.state.as_str()).collect();
        if !needing.is_empty() {
            out += &format!(
                "\nA step to {} tells of the story's tasks, and Planning is asked for them if they are not known; every other step does if they are.\n",
                needing.join(" or ")
            );
        }
        out += "Where the state that a trigger leads to has it too, the story goes on by it, one told step at a time.\n";
        out
    }
}

impl StoryState {
    fn triggers_to(&self, next: &str) -> Vec<String> {
        // A second colon ends a label.
        let names = self.triggers.iter().filter(|(_, to)| *to == next);
        names.map(|(name, _)| name.replace(':', " to ")).collect()
    }
}

/// `called`: states with more to them than a name.
fn diagram<'a>(
    initial: &str,
    moves: impl Iterator<Item = (&'a String, &'a String, String)>,
    ends: impl Iterator<Item = &'a String>,
    called: impl Iterator<Item = (&'a String, String)>,
) -> String {
    let mut out = "```mermaid\nstateDiagram-v2\n".to_owned();
    for (state, name) in called {
        out += &format!("    state \"{name}\" as {state}\n");
    }
    out += &format!("    [*] --> {initial}\n");
    for (from, to, label) in moves {
        let label = if label.is_empty() { label } else { format!(" : {label}") };
        out += &format!("    {from} --> {to}{label}\n");
    }
    for state in ends {
        out += &format!("    {state} --> [*]\n");
    }
    out + "```\n"
}

fn line(out: &mut String, cells: &[&str]) {
    for cell in cells {
        *out += &format!("| {cell}{}", if cell.is_empty() { "" } else { " " });
    }
    *out += "|\n";
}

/// The longest unit that goes into it.
fn spelled(seconds: u64) -> String {
    match seconds {
        s if s > 0 && s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s > 0 && s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_tables_say() {
        let repo = Repo::find().unwrap();
        let there = std::fs::read_to_string(repo.root().join(PAGE)).unwrap_or_default();
        assert!(
            there == page(&repo).unwrap(),
            "{PAGE} differs from the tables of the plugins; run `cargo xtask docs` and commit the result"
        );
    }

    #[test]
    fn times_are_spelled_in_the_longest_unit() {
        assert_eq!([3_600, 86_400, 90, 600, 0].map(spelled), ["1 h", "24 h", "90 s", "10 min", "0 s"]);
    }
}
