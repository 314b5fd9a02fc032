//! What Planning tells of a task, as much of it as a task keeps.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    fleet::{Incoming, Malformed, QueueConstraints, Role, TaskCreated, lenient},
    warn,
};
use serde_json::Value;

use super::Task;
use crate::texts::{cut, json_bytes};

/// The queue looks at all of a task's dependencies at once, and one event reaches 64 cells.
const DEPENDENCIES: usize = 60;
/// So many cells of tasks together are what one event may read (4 MiB), so a cell is to have less than 64 KiB. As JSON.
const TITLE: usize = 1 << 10;
const DESCRIPTION: usize = 32 << 10;
const RUBRIC: usize = 4 << 10;
const REQUIREMENTS: usize = 6 << 10;
const METADATA: usize = 2 << 10;
/// Ids name cells, and thousands are in the queue's.
const ID: usize = 256;
/// `NORMAL` in section 4 of the fleet's contract.
const PRIORITY: i64 = 5;

/// An id that can be kept.
pub(super) fn named(message: &Incoming, what: &str, id: &str) -> Result<(), Malformed> {
    if id.len() <= ID {
        return Ok(());
    }
    let start: String = id.chars().take(40).collect();
    Err(malformed(
        message,
        format!("the id of its {what}, {start}…, has {} bytes, and {ID} are the most", id.len()),
    ))
}

/// What the task waits for: without itself, empty names and repeats.
pub(super) fn dependencies(message: &Incoming, created: &TaskCreated) -> Result<Vec<String>, Malformed> {
    let mut known: Vec<String> = Vec::new();
    // The queue of the fleet's first orchestrator knows them by the other name.
    let named_else = || message.list("dependencies").unwrap_or_default();
    let told = if created.depends_on.is_empty() { named_else() } else { created.depends_on.clone() };
    for id in &told {
        if *id == created.task_id {
            warn!("the task depends on itself, which is ignored"; task_id = id);
            continue;
        }
        named(message, "dependency", id)?;
        if !known.contains(id) {
            known.push(id.clone());
        }
    }
    if known.len() > DEPENDENCIES {
        return Err(malformed(
            message,
            format!(
                "it has {} dependencies, and {DEPENDENCIES} are the most; let some of them wait for others",
                known.len()
            ),
        ));
    }
    Ok(known)
}

fn malformed(message: &Incoming, reason: String) -> Malformed {
    Malformed { subject: message.subject().to_owned(), reason }
}

impl Task {
    /// Takes over what Planning says; what it leaves out stays as it was.
    pub(super) fn explain(&mut self, message: &Incoming, created: &TaskCreated, depends_on: Vec<String>) {
        self.explained = true;
        self.story_id.clone_from(&created.story_id);
        self.plan_id = created.plan_id.clone().or(self.plan_id.take());
        let priority = priority(message);
        if priority.is_some() || self.score == 0 {
            self.score = score(priority);
        }
        self.depends_on = depends_on;
        if let Some(name) = message.text(&["assigned_to", "assigned_role", "role"]) {
            self.role = role(&name, &self.task_id);
        }
        for (kept, told, most) in [
            (&mut self.title, &created.title, TITLE),
            (&mut self.description, &created.description, DESCRIPTION),
        ] {
            let Some(told) = told else { continue };
            *kept = cut(told, most);
            if kept != told {
                warn!("a text of the task is cut, for it has {} bytes", told.len(); task_id = self.task_id);
            }
        }
        if message.at("constraints").is_some() || message.at("acceptance_criteria").is_some() {
            self.constraints = constraints(message);
        }
        self.requires_pre_deliberation = deliberation(message).or(self.requires_pre_deliberation);
    }

    /// What an agent reads: the title, and the description unless that says no more.
    pub(super) fn text(&self) -> String {
        let (title, description) = (self.title.trim(), self.description.trim());
        match (title, description) {
            ("", description) => description.into(),
            (title, "") => title.into(),
            (title, description) if description.starts_with(title) => description.into(),
            (title, description) => format!("{title}\n\n{description}"),
        }
    }
}

/// Whether the message says that a council is to be asked first.
pub(super) fn deliberation(message: &Incoming) -> Option<bool> {
    let key = "requires_pre_deliberation";
    ["", "constraints.", "constraints.metadata.", "metadata."]
        .iter()
        .find_map(|place| message.at(&format!("{place}{key}")).and_then(lenient::flag))
}

/// The orchestrator's name of a role; a developer's of one that it does not know.
pub(super) fn role(name: &str, task_id: &str) -> String {
    let role = Role::parse(name).unwrap_or_else(|| {
        warn!("the role {name:?} is none of the fleet's, so a developer's it is"; task_id = task_id);
        Role::Developer
    });
    role.wire().into()
}

/// As a number, or in the words that section 4 of the fleet's contract has for it.
pub(super) fn priority(message: &Incoming) -> Option<i64> {
    let word = || {
        let word = message.text(&["priority"])?.to_ascii_uppercase();
        match word.as_str() {
            "CRITICAL" => Some(1),
            "HIGH" => Some(2),
            "MEDIUM" | "NORMAL" => Some(5),
            "LOW" => Some(8),
            word => word.strip_prefix('P')?.parse::<u8>().ok().map(i64::from),
        }
    };
    message.int("priority").or_else(word)
}

/// For Planning 1 is the highest, for the queue the greatest score.
pub(super) fn score(priority: Option<i64>) -> u8 {
    let priority = priority.unwrap_or(PRIORITY).clamp(1, 10);
    u8::try_from(11 - priority).unwrap_or(1)
}

fn constraints(message: &Incoming) -> QueueConstraints {
    let number = |path: &str| message.int(path).and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let rubric = message.at("constraints.rubric").map(|rubric| match lenient::text(rubric) {
        Some(text) => text,
        None => rubric.to_string(),
    });
    let requirements =
        ["constraints.requirements", "acceptance_criteria"].iter().find_map(|path| message.list(path));
    let mut left = REQUIREMENTS;
    let mut fits = |texts: &[&str]| {
        let bytes = texts.iter().map(|text| json_bytes(text) + 4).sum::<usize>();
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    let requirements =
        requirements.unwrap_or_default().into_iter().take_while(|text| fits(&[text])).collect();
    left = METADATA;
    let mut metadata = BTreeMap::new();
    for (key, value) in message.at("constraints.metadata").and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = lenient::text(value) else { continue };
        let bytes = json_bytes(key) + json_bytes(&value) + 6;
        if bytes <= left {
            left -= bytes;
            metadata.insert(key.clone(), value);
        }
    }
    QueueConstraints {
        rubric: cut(&rubric.unwrap_or_default(), RUBRIC),
        requirements,
        metadata,
        max_iterations: number("constraints.max_iterations"),
        timeout_seconds: number("constraints.timeout_seconds"),
    }
}
