//! What a run ends with: one JSON document, or tables and a tree for a person.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::follow::Event;
use super::full::Full;
use crate::steps::{Phase, seconds};

/// A task as Planning tells it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) role: String,
    pub(super) priority: i64,
    pub(super) estimated_hours: serde_json::Number,
    pub(super) depends_on: Vec<String>,
    /// In a full run: what the workflow says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) plan_id: String,
    pub(super) story_id: String,
    #[serde(skip)]
    pub(super) title: String,
    /// `local` or `nats`.
    pub(super) bus: String,
    pub(super) tasks: Vec<Task>,
    pub(super) events: Vec<Event>,
    /// From the approval to the last assignment; in a full run to the last that happened to a task or the story.
    pub(super) elapsed_ms: u64,
    #[serde(flatten)]
    pub(super) full: Option<Full>,
}

impl Report {
    pub(super) fn text(&self, phases: &[Phase]) -> String {
        let mut text = vec![
            format!("\n{}\nplan {}, story {}\n", self.title, self.plan_id, self.story_id),
            tasks(&self.tasks),
            "\nWhat waits for what (a task stands below what it needs)\n".to_owned(),
        ];
        text.extend(tree(&self.tasks));
        let end = match &self.full {
            Some(full) => {
                text.extend(full.text(&self.tasks));
                "end"
            }
            None => "last assignment",
        };
        text.push(format!("\nWhere the time went: {} ms from the approval to the {end}\n", self.elapsed_ms));
        text.push(times(&self.events));
        text.push("\nSetting up\n".to_owned());
        text.push(setup(phases));
        text.join("\n")
    }
}

fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(110);
    table.set_header(header.iter().copied());
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn number(tasks: &[Task], id: &str) -> String {
    tasks.iter().position(|task| task.id == id).map_or_else(|| id.to_owned(), |index| (index + 1).to_string())
}

fn tasks(tasks: &[Task]) -> String {
    let mut table = table(&["#", "task", "role", "priority", "hours", "after"], &[0, 3, 4]);
    for (index, task) in tasks.iter().enumerate() {
        let after = task.depends_on.iter().map(|id| number(tasks, id)).collect::<Vec<_>>().join(", ");
        let hours = task.estimated_hours.to_string();
        let row = [
            (index + 1).to_string(),
            task.title.clone(),
            task.role.clone(),
            task.priority.to_string(),
            hours,
            after,
        ];
        table.add_row(row);
    }
    table.to_string()
}

/// Each task once, below the deepest of those that it needs; the others are named.
fn tree(tasks: &[Task]) -> Vec<String> {
    let index =
        tasks.iter().enumerate().map(|(index, task)| (task.id.as_str(), index)).collect::<BTreeMap<_, _>>();
    let needs = tasks
        .iter()
        .map(|task| task.depends_on.iter().filter_map(|id| index.get(id.as_str()).copied()).collect());
    let needs = needs.collect::<Vec<Vec<usize>>>();
    // Planning refuses cycles; were there one, the rounds end anyway.
    let mut depth = vec![0_usize; tasks.len()];
    for _ in 0..tasks.len() {
        for (task, needs) in needs.iter().enumerate() {
            depth[task] = needs.iter().map(|need| depth[*need] + 1).max().unwrap_or(0).min(tasks.len());
        }
    }
    let parent = |task: usize| {
        let above = needs[task].iter().copied().filter(|need| depth[*need] < depth[task]);
        above.max_by_key(|need| depth[*need])
    };
    let mut below = vec![Vec::new(); tasks.len()];
    let mut roots = Vec::new();
    for task in 0..tasks.len() {
        match parent(task) {
            Some(parent) => below[parent].push(task),
            None => roots.push(task),
        }
    }
    let label = |task: usize| {
        let others = needs[task].iter().filter(|need| Some(**need) != parent(task));
        let others = others.map(|need| (need + 1).to_string()).collect::<Vec<_>>().join(", ");
        let others = if others.is_empty() { others } else { format!("  (and after {others})") };
        format!("{} {}{others}", task + 1, tasks[task].title)
    };
    let mut lines = Vec::new();
    for root in roots {
        lines.push(label(root));
        branch(&below, &label, root, "", &mut lines);
    }
    lines
}

fn branch(
    below: &[Vec<usize>],
    label: &impl Fn(usize) -> String,
    of: usize,
    indent: &str,
    lines: &mut Vec<String>,
) {
    for (place, task) in below[of].iter().enumerate() {
        let last = place + 1 == below[of].len();
        lines.push(format!("{indent}{}{}", if last { "└── " } else { "├── " }, label(*task)));
        branch(below, label, *task, &format!("{indent}{}", if last { "    " } else { "│   " }), lines);
    }
}

/// One row for each subject, plugin and outcome, in the order of their first event.
fn times(events: &[Event]) -> String {
    let mut rows: Vec<(&Event, usize, f64, f64)> = Vec::new();
    for event in events.iter().filter(|event| event.outcome != "published") {
        let same = |other: &&mut (&Event, usize, f64, f64)| {
            (&other.0.subject, &other.0.plugin, &other.0.outcome)
                == (&event.subject, &event.plugin, &event.outcome)
        };
        match rows.iter_mut().find(same) {
            Some((_, count, sum, max)) => {
                *count += 1;
                *sum += event.ms;
                *max = max.max(event.ms);
            }
            None => rows.push((event, 1, event.ms, event.ms)),
        }
    }
    let mut table = table(&["event", "handled by", "outcome", "times", "ms in all", "longest"], &[3, 4, 5]);
    for (event, count, sum, max) in rows {
        let (sum, max) = (format!("{sum:.1}"), format!("{max:.1}"));
        table.add_row([
            event.subject.clone(),
            event.plugin.clone(),
            event.outcome.clone(),
            count.to_string(),
            sum,
            max,
        ]);
    }
    table.to_string()
}

fn setup(phases: &[Phase]) -> String {
    let mut table = table(&["step", "time", ""], &[1]);
    for phase in phases {
        table.add_row([phase.name.clone(), seconds(phase.took), phase.note.clone()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, after: &[&str]) -> Task {
        let depends_on = after.iter().map(|id| (*id).to_owned()).collect();
        Task {
            id: id.into(),
            title: id.to_uppercase(),
            role: "DEVELOPER".into(),
            priority: 1,
            estimated_hours: 4.into(),
            depends_on,
            state: None,
        }
    }

    #[test]
    fn every_task_stands_once_below_the_deepest_that_it_needs() {
        let tasks =
            [task("a", &[]), task("b", &["a"]), task("c", &["a", "b"]), task("d", &["a"]), task("e", &["x"])];
        assert_eq!(tree(&tasks), ["1 A", "├── 2 B", "│   └── 3 C  (and after 1)", "└── 4 D", "5 E"]);
    }

    #[test]
    fn a_cycle_does_not_hang_the_tree() {
        let lines = tree(&[task("a", &["b"]), task("b", &["a"])]);
        assert!(lines.len() <= 2, "{lines:?}");
    }

    #[test]
    fn events_of_a_kind_are_one_row() {
        let event = |subject: &str, outcome: &str, ms| Event {
            subject: subject.into(),
            plugin: "p".into(),
            outcome: outcome.into(),
            ms,
            at_ms: 0,
        };
        let text = times(&[
            event("s", "done", 1.0),
            event("s", "published", 0.0),
            event("s", "done", 2.5),
            event("s", "retry", 4.0),
        ]);
        assert!(
            text.contains("3.5")
                && text.contains("2.5")
                && text.contains("retry")
                && !text.contains("published"),
            "{text}"
        );
    }

    #[test]
    fn the_document_has_the_promised_keys() {
        let report = Report {
            plan_id: "p".into(),
            story_id: "s".into(),
            title: "T".into(),
            bus: "local".into(),
            tasks: vec![task("a", &[])],
            events: Vec::new(),
            elapsed_ms: 7,
            full: None,
        };
        let document = serde_json::to_value(&report).unwrap();
        let keys = document
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(keys, ["plan_id", "story_id", "bus", "tasks", "events", "elapsed_ms"].into());
        let keys = document["tasks"][0]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(
            keys,
            ["id", "title", "role", "priority", "estimated_hours", "depends_on"].map(String::from).into()
        );
    }
}
