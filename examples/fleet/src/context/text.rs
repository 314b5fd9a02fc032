//! What an agent is told of a story: made from Planning's tables and from what Context was told, or read from a file where the
//! operator has something better to say.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    roles,
    store::{knowledge::Entity, plans::Plan, tasks::Task},
};

/// Characters per token, the usual rule of thumb for English text.
const CHARS_PER_TOKEN: usize = 4;
/// Of a decision's rationale: the reader is to know of it, not to read it all.
const RATIONALE_CHARS: usize = 400;
/// The line above what was decided.
pub(super) const DECISIONS: &str = "Decisions:";

/// Texts that stand in for what the tables would give: by role, and under the empty name for all others.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeMap<String, String>);

impl Texts {
    /// Reads the files of `FILE` or `ROLE=FILE`.
    pub(crate) fn read(files: &[String]) -> anyhow::Result<Texts> {
        let mut texts = BTreeMap::new();
        for file in files {
            let (role, path) = match file.split_once('=') {
                Some((role, path)) => (roles::canonical(role), PathBuf::from(path)),
                None => (String::new(), PathBuf::from(file)),
            };
            let text = std::fs::read_to_string(&path).with_context(|| {
                format!("can't read the context file {} (--context-file)", path.display())
            })?;
            texts.insert(role, text);
        }
        Ok(Texts(texts))
    }

    pub(super) fn of(&self, role: &str) -> Option<&String> {
        self.0.get(role).or_else(|| self.0.get(""))
    }
}

/// What there is to tell.
pub(super) struct Story {
    pub(super) story_id: String,
    /// Empty if Planning does not know it.
    pub(super) title: String,
    pub(super) plan: Option<Plan>,
    pub(super) tasks: Vec<Task>,
    pub(super) decisions: Vec<Entity>,
}

/// For one role; for one task if it is named.
pub(super) fn describe(story: &Story, role: &str, subtask_id: &str) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    if story.title.is_empty() {
        line(format!("Story {}, which Planning does not know", story.story_id));
    } else {
        line(format!("Story {}: {}", story.story_id, story.title));
    }
    if let Some(plan) = &story.plan {
        if plan.title != story.title {
            line(format!("Current plan: {}", plan.title));
        }
        if plan.approvals > 0 {
            line("The product owner has approved the plan.".to_owned());
        }
    }
    line(format!("What matters to {role}: {}", focus(role)));
    let about: Vec<&Task> =
        story.tasks.iter().filter(|task| subtask_id.is_empty() || task.task_id == subtask_id).collect();
    if about.is_empty() {
        line("No tasks exist yet.".to_owned());
    } else {
        line("Tasks so far:".to_owned());
        for task in about {
            line(format!("- {} ({}, {})", task.title, task.task_id, task.assigned_role));
        }
    }
    let concerns = |entity: &&Entity| {
        let task = field(entity, "affected_subtask");
        subtask_id.is_empty() || task.is_empty() || task == subtask_id
    };
    let decisions: Vec<&Entity> = story.decisions.iter().filter(concerns).collect();
    if !decisions.is_empty() {
        line(DECISIONS.to_owned());
        for entity in decisions {
            line(decision(entity));
        }
    }
    text
}

/// `- DEC-1 (TECHNICAL, approved by ann: go ahead): one table for all`, in one line.
fn decision(entity: &Entity) -> String {
    let status = field(entity, "status");
    let (by, why) = match status.as_str() {
        "approved" => ("approved_by", "comment"),
        "rejected" => ("rejected_by", "reason"),
        _ => ("", ""),
    };
    let mut said = status;
    for (word, key) in [(" by ", by), (": ", why)] {
        let text = field(entity, key);
        if !text.is_empty() {
            said = format!("{said}{word}{text}");
        }
    }
    let about: Vec<String> =
        [field(entity, "type"), said].into_iter().filter(|text| !text.is_empty()).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let rationale: String = field(entity, "rationale").chars().take(RATIONALE_CHARS).collect();
    format!("- {}{about}: {rationale}", entity.entity_id)
}

/// A field as one line of text; empty if it has none.
fn field(entity: &Entity, key: &str) -> String {
    let text = match entity.fields.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn focus(role: &str) -> &'static str {
    match role {
        "DEVELOPER" => "small changes that can be reviewed alone, each with its tests.",
        "QA" => "every acceptance criterion has a test that fails without the feature.",
        "ARCHITECT" => "clear boundaries between parts; decisions that cost much to change come first.",
        "PO" => "each task leaves something that can be shown.",
        "DEVOPS" => "roll-out and roll-back without downtime; metrics before traffic.",
        "DATA" => "migrations that run while the old version still serves.",
        _ => "tasks that can be done one after another without waiting for people.",
    }
}

pub(super) fn tokens(text: &str) -> usize {
    text.chars().count().div_ceil(CHARS_PER_TOKEN)
}

/// Cuts the text to the budget; 0 is no limit.
pub(super) fn shorten(text: String, budget: i32) -> String {
    match usize::try_from(budget) {
        Ok(budget) if budget > 0 && tokens(&text) > budget => {
            text.chars().take(budget.saturating_mul(CHARS_PER_TOKEN)).collect()
        }
        _ => text,
    }
}
