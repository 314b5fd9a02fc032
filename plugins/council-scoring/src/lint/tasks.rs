//! Blocks of tasks: whether each is in the fleet's format. Whether they go together is for the dry run.

use fleet_tasks::{Entry, Key, blocks};
use serde_json::Value;

use crate::findings::{Findings, clip};

const LONGEST_TITLE: usize = 80;
const MOST_HOURS: u32 = 40;
const PRIORITIES: [&str; 5] = ["CRITICAL", "HIGH", "MEDIUM", "NORMAL", "LOW"];

/// Whether a text holds task blocks: a line of it has a `TASK_ID`, whatever list marker is before.
pub(crate) fn are_in(content: &str) -> bool {
    content.lines().any(|line| {
        let name = line
            .trim_start_matches(|c: char| c.is_whitespace() || c.is_ascii_digit() || "-*+#.>`)".contains(c));
        let Some((head, rest)) = name.split_at_checked("TASK_ID".len()) else { return false };
        head.eq_ignore_ascii_case("TASK_ID") && rest.trim_start_matches(['*', ' ']).starts_with(':')
    })
}

pub(super) fn check(content: &str, errors: &mut Findings, warnings: &mut Findings) {
    if !are_in(content) {
        return;
    }
    // What has no id is prose that looks like fields.
    for entry in blocks::entries(content).iter().filter(|entry| !entry.get(Key::TaskId).is_null()) {
        one(entry, errors, warnings);
    }
}

fn one(entry: &Entry, errors: &mut Findings, warnings: &mut Findings) {
    let text = |key| entry.get(key).as_str().unwrap_or_default().trim();
    let id = || clip(text(Key::TaskId), 40);
    if !entry.has_title() {
        errors.add(|| format!("the task {} has no TITLE", id()));
    } else if text(Key::Title).chars().count() > LONGEST_TITLE {
        warnings.add(|| format!("the title of {} has more than {LONGEST_TITLE} characters", id()));
    }
    let hours = text(Key::EstimatedHours);
    if !hours.is_empty() && !number(hours).is_some_and(|hours| (1..=MOST_HOURS).contains(&hours)) {
        errors.add(|| format!("ESTIMATED_HOURS of {} is {:?}, not 1 to {MOST_HOURS}", id(), clip(hours, 40)));
    }
    let priority = text(Key::Priority);
    let named = PRIORITIES.iter().any(|name| priority.eq_ignore_ascii_case(name));
    if !priority.is_empty() && !named && number(priority.trim_start_matches(['P', 'p'])).is_none() {
        errors.add(|| format!("PRIORITY of {} is {:?}, which is none", id(), clip(priority, 40)));
    }
    for (key, name) in [(Key::Description, "DESCRIPTION"), (Key::Role, "ROLE")] {
        if *entry.get(key) == Value::Null {
            warnings.add(|| format!("the task {} has no {name}", id()));
        }
    }
}

/// The number that a text begins with; nothing for one that is absurd.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}
