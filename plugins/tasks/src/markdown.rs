//! Tasks as items of Markdown lists and headings, with labelled lines below them. Step 4 of reading an answer, asked only
//! for a text without blocks.

use cofferdam_sdk::fleet::Role;
use serde_json::Value;

use crate::{
    entry::{Entry, Key},
    lines::{Line, is_fence, is_rule, label, unbold},
};

/// A line `Task 2: text` without any marker ranks below every heading.
const UNMARKED: usize = 7;

/// The items of a text that are tasks: those with a TASK-nnn id, or with a labelled line of their own.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut outline = Outline::default();
    for line in text.lines().filter(|line| !is_fence(line)) {
        outline.line(line);
    }
    outline.close();
    outline.into_tasks()
}

#[derive(Default)]
struct Outline<'a> {
    items: Vec<Item<'a>>,
    /// The items that the next line may stand under, outermost first.
    above: Vec<usize>,
    /// The level of the last section's heading, and its role if it names one.
    section: Option<(usize, Option<Role>)>,
    open: Open,
}

/// Small, because a long answer has a hundred thousand of them.
struct Item<'a> {
    indent: usize,
    parent: Option<usize>,
    found: Found<'a>,
    /// The role of the section it is in.
    role: Option<Role>,
    /// Its labelled lines, if it has any.
    fields: Option<Entry>,
}

/// What the next line may belong to.
#[derive(Default)]
enum Open {
    #[default]
    Nothing,
    /// A key whose own line was empty.
    Value {
        item: usize,
        indent: usize,
        key: Key,
    },
    Description {
        item: usize,
        indent: usize,
        lines: Vec<String>,
    },
}

impl<'a> Outline<'a> {
    fn line(&mut self, raw: &'a str) {
        let line = Line::read(raw);
        if is_rule(raw) {
            self.close();
        } else if let Some((key, value)) = line.field() {
            self.close();
            self.field(&line, key, value);
        } else if !self.continues(&line) {
            self.close();
            let role = if line.heading > 0 { section_role(line.text) } else { None };
            match Found::read(&line) {
                Some(found) if role.is_none() => self.item(&line, found),
                _ if line.heading > 0 => self.section(line.heading, role),
                _ => {}
            }
        }
    }

    /// Whether the line belongs to the value that is open; if so, it is taken.
    fn continues(&mut self, line: &Line<'_>) -> bool {
        let (Open::Value { indent, .. } | Open::Description { indent, .. }) = &self.open else {
            return false;
        };
        let outside = line.heading > 0
            || (line.is_listed() && line.indent <= *indent)
            || Found::read(line).is_some_and(|found| found.has_id || found.level > 0);
        match &mut self.open {
            Open::Value { .. } if line.text.is_empty() => true,
            _ if outside => false,
            Open::Description { lines, .. } => {
                lines.push(line.text.to_owned());
                true
            }
            Open::Value { item, key, .. } => {
                set(&mut self.items[*item], *key, line.text);
                self.open = Open::Nothing;
                true
            }
            Open::Nothing => false,
        }
    }

    fn field(&mut self, line: &Line<'_>, key: Key, value: &str) {
        let Some(item) = self.owner(line) else { return };
        let is_named = !title(self.items[item].found.text).is_empty();
        let fields = self.items[item].fields.get_or_insert_default();
        match key {
            // The item's own text is its title; `Name: ...` below it is a detail, as of a form's fields.
            Key::Title if is_named => {}
            Key::Description => {
                self.open = Open::Description { item, indent: line.indent, lines: vec![value.to_owned()] };
            }
            _ if value.is_empty() => self.open = Open::Value { item, indent: line.indent, key },
            _ => fields.set(key, Value::from(unbold(value))),
        }
    }

    /// The item that a labelled line stands under: the nearest one further out, else the last one.
    fn owner(&self, line: &Line<'_>) -> Option<usize> {
        let is_outer = |item: &Item<'_>| {
            item.found.level > 0
                || item.indent < line.indent
                || (!line.is_listed() && item.indent == line.indent)
        };
        let outer = self.above.iter().rev().find(|item| is_outer(&self.items[**item]));
        outer.or(self.above.last()).copied()
    }

    fn item(&mut self, line: &Line<'_>, found: Found<'a>) {
        if found.level > 0 {
            self.leave_section(found.level);
        } else {
            self.leave(|item| item.found.level == 0 && item.indent >= line.indent);
        }
        self.items.push(Item {
            indent: line.indent,
            parent: self.above.last().copied(),
            found,
            role: self.section.and_then(|(_, role)| role),
            fields: None,
        });
        self.above.push(self.items.len() - 1);
    }

    /// A heading without a role leaves the one above it in force, unless it ends that section.
    fn section(&mut self, level: usize, role: Option<Role>) {
        self.leave_section(level);
        let inner = self.section.is_some_and(|(outer, _)| outer < level);
        if role.is_some() || !inner {
            self.section = Some((level, role));
        }
    }

    fn leave_section(&mut self, level: usize) {
        self.leave(|item| item.found.level == 0 || item.found.level >= level);
    }

    fn leave(&mut self, is_left: impl Fn(&Item<'_>) -> bool) {
        while self.above.last().is_some_and(|item| is_left(&self.items[*item])) {
            self.above.pop();
        }
    }

    /// Stores the description that the last lines added up to.
    fn close(&mut self) {
        if let Open::Description { item, lines, .. } = std::mem::take(&mut self.open) {
            set(&mut self.items[item], Key::Description, lines.join("\n").trim());
        }
    }

    fn into_tasks(self) -> Vec<Entry> {
        // A parent comes before its children, so one pass settles who stands inside a task.
        let mut is_task = Vec::with_capacity(self.items.len());
        let mut inside = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let within = item.parent.is_some_and(|parent| is_task[parent] || inside[parent]);
            // Inside a task, what is labelled is a detail of it; an id still makes a task.
            is_task.push(item.found.has_id || (item.fields.is_some() && !within));
            inside.push(within);
        }
        let tasks = self.items.into_iter().zip(is_task).filter(|(_, is_task)| *is_task);
        tasks.map(|(item, _)| item.into_entry()).collect()
    }
}

impl Item<'_> {
    /// What its labelled lines say goes before what the item itself and its section do.
    fn into_entry(self) -> Entry {
        let mut entry = self.fields.unwrap_or_default();
        entry.set(Key::Title, Value::from(title(self.found.text)));
        if let Some(id) = self.found.id {
            entry.set(Key::TaskId, Value::from(id));
        }
        if let Some(role) = self.role {
            entry.set(Key::Role, Value::from(role.wire()));
        }
        entry
    }
}

fn set(item: &mut Item<'_>, key: Key, value: &str) {
    item.fields.get_or_insert_default().set(key, Value::from(unbold(value)));
}

/// A line that may start a task.
struct Found<'a> {
    id: Option<&'a str>,
    /// The id alone makes it a task.
    has_id: bool,
    /// 0: a list item.
    level: usize,
    text: &'a str,
}

impl<'a> Found<'a> {
    fn read(line: &Line<'a>) -> Option<Self> {
        let label = label(line.text);
        let level = if line.heading > 0 {
            line.heading
        } else if line.is_listed() {
            0
        } else {
            UNMARKED
        };
        match label {
            // Prose may begin with "TASK-001: ", so a line without marker has to prove itself by labelled lines.
            Some(label) if level != UNMARKED || (label.separated && !label.text.is_empty()) => Some(Self {
                id: Some(label.id),
                has_id: label.is_id
                    && level != UNMARKED
                    && (label.separated || line.checkbox || (line.heading > 0 && !label.text.is_empty())),
                level,
                text: label.text,
            }),
            None if line.is_listed() => {
                let (text, id) = trailing_id(line.text);
                Some(Self { id, has_id: id.is_some(), level, text })
            }
            _ => None,
        }
    }
}

/// `text (TASK-001)`.
fn trailing_id(text: &str) -> (&str, Option<&str>) {
    let inner = text.strip_suffix([')', ']']).and_then(|rest| {
        let at = rest.rfind(['(', '['])?;
        let label = label(&rest[at + 1..]).filter(|label| label.is_id && label.text.is_empty())?;
        Some((rest[..at].trim_end(), Some(label.id)))
    });
    inner.unwrap_or((text, None))
}

fn title(text: &str) -> String {
    text.replace("**", "").trim().trim_end_matches([':', '：']).trim_end().to_owned()
}

/// The role that a heading such as `DEV Tasks` sets.
fn section_role(text: &str) -> Option<Role> {
    let text = title(text);
    let words: Vec<&str> = text.split_whitespace().take(4).collect();
    let (last, rest) = words.split_last()?;
    let name = match last.to_ascii_lowercase().as_str() {
        "task" | "tasks" => rest.join(" "),
        _ => words.join(" "),
    };
    Role::parse(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, expect: Value) {
        const KEYS: [Key; 8] = [
            Key::TaskId,
            Key::Title,
            Key::Description,
            Key::Role,
            Key::EstimatedHours,
            Key::Priority,
            Key::Keywords,
            Key::DependsOn,
        ];
        let found: Vec<Value> = entries(text)
            .iter()
            .map(|entry| KEYS.iter().map(|key| entry.get(*key).clone()).filter(|v| !v.is_null()).collect())
            .collect();
        assert_eq!(Value::Array(found), expect, "text:\n{text}");
    }

    #[test]
    fn contract_4_parsing_4_a_check_list_under_role_headings() {
        check(
            "# Plan\n\n## DEV Tasks\n- [ ] TASK-001: Implement login endpoint\n  - Depends on: TASK-000\n  - Priority: HIGH\n- [x] **TASK-002**: Store tokens\n\n## QA Tasks\n- [ ] TASK-003: Test login\n  - Role: architect\n\n## Other\n* TASK-004: Write docs\n",
            json!([
                ["TASK-001", "Implement login endpoint", "DEV", "HIGH", "TASK-000"],
                ["TASK-002", "Store tokens", "DEV"],
                ["TASK-003", "Test login", "architect"],
                ["TASK-004", "Write docs"]
            ]),
        );
    }

    #[test]
    fn contract_4_parsing_4_numbered_items_with_labelled_lines() {
        check(
            "Steps:\n\n1. **Add login**:\n   - Priority: 2\n2. Add logout\n- Estimate: 4h\n3) Plain\nHours: 2\n4. Only prose\n",
            json!([["Add login", "2"], ["Add logout", "4h"], ["Plain", "2"]]),
        );
    }

    #[test]
    fn contract_4_parsing_4_headings_with_labelled_lines() {
        check(
            "## QA tasks\n### Task 1: Add login\nsome prose\n- Description: one\n  two\n    - three\n- Role: DEV\n\n### Task 2: Add logout\n\n**Priority**: low\n\n### Notes\n- Priority: none of a task\n",
            json!([["Task 1", "Add login", "one\ntwo\nthree", "DEV"], ["Task 2", "Add logout", "QA", "low"]]),
        );
        check(
            "**Task 1: Add login**\n- Role: QA\nTask 2: Add logout\nRole: DEV",
            json!([["Task 1", "Add login", "QA"], ["Task 2", "Add logout", "DEV"]]),
        );
    }

    #[test]
    fn contract_4_parsing_4_plain_prose_lists_are_no_tasks() {
        check("- one\n- two\n\n1. three\n2. four\n\n### Task 5: five\n\nTASK-006: six is prose", json!([]));
        check("- TASK-002 depends on TASK-001", json!([]));
    }

    #[test]
    fn details_below_a_task_are_not_tasks() {
        check(
            "1. Add login\n   - write the handler\n   - Priority: 3\n   - write the test\n     - Hours: 1\n- Area\n  - [ ] TASK-002 Add logout\n    - Tags: x\n",
            json!([["Add login", "3"], ["TASK-002", "Add logout", "x"]]),
        );
    }

    #[test]
    fn an_id_may_follow_in_brackets() {
        check("- Add login (TASK-001)\n- Add (more) things", json!([["TASK-001", "Add login"]]));
    }

    #[test]
    fn an_id_in_a_heading_needs_no_colon() {
        check(
            "### TASK-001 Add login\nSome prose.\n### **TASK-002** Add logout\n### TASK-003\n### Task 4 Notes\n",
            json!([["TASK-001", "Add login"], ["TASK-002", "Add logout"]]),
        );
    }

    #[test]
    fn values_in_bold_are_bare() {
        check(
            "1. A\n   - Priority: **HIGH**\n   - **Hours**: **4h**\n   - Role:\n     **QA**\n   - Tags: **x**, **y**",
            json!([["A", "QA", "4h", "HIGH", "**x**, **y**"]]),
        );
    }

    #[test]
    fn an_empty_label_takes_the_next_line() {
        check(
            "1. A\n   - Keywords:\n\n     x, y\n2. B\n   - Role:\n3. C\n   - Role: QA",
            json!([["A", "x, y"], ["B"], ["C", "QA"]]),
        );
    }

    #[test]
    fn a_role_is_a_section_in_a_heading_only() {
        check("1. QA\n   - Priority: 2", json!([["QA", "2"]]));
        check("## 1. QA Tasks\n- TASK-001: A", json!([["TASK-001", "A", "QA"]]));
    }

    #[test]
    fn a_description_ends_where_something_else_begins() {
        check("1. A\n   - Description: one\n## Notes\nmore", json!([["A", "one"]]));
        check("1. A\n   - Description: one\n     - two\n   - three", json!([["A", "one\ntwo"]]));
        check("1. A\n   - Description: one\n     - TASK-002: B", json!([["A", "one"], ["TASK-002", "B"]]));
        check(
            "**Task 1: A**\n- Description: one\nTask 2: B\nRole: DEV",
            json!([["Task 1", "A", "one"], ["Task 2", "B", "DEV"]]),
        );
    }

    #[test]
    fn a_labelled_line_is_of_the_nearest_item_further_out() {
        check("### Task 1: A\n- write it\n- Role: DEV", json!([["Task 1", "A", "DEV"]]));
        check("1. A\n   - write it\nHours: 2", json!([["A", "2"]]));
        check("1. A\n   - write it\n     Hours: 2", json!([["write it", "2"]]));
        check("1. A\n- Hours: 1\n## Notes\n- Priority: 3", json!([["A", "1"]]));
    }

    #[test]
    fn a_section_s_role_holds_until_a_heading_as_high() {
        check(
            "## QA Tasks\n### Login\n- TASK-001: A\n## Other\n- TASK-002: B",
            json!([["TASK-001", "A", "QA"], ["TASK-002", "B"]]),
        );
        check(
            "# QA Tasks\n## DEV\n- TASK-001: A\n# Other\n- TASK-002: B",
            json!([["TASK-001", "A", "DEV"], ["TASK-002", "B"]]),
        );
    }

    #[test]
    fn a_heading_s_task_is_not_inside_the_list_before_it() {
        check(
            "1. A\n   - Hours: 1\n### Task 2: B\n- Role: QA\n## Task 3: C\n- Role: PO",
            json!([["A", "1"], ["Task 2", "B", "QA"], ["Task 3", "C", "PO"]]),
        );
    }

    #[test]
    fn prose_about_a_task_is_none() {
        check("1. A\n   - Hours: 1\nTask 2 is the harder one\nPriority: 3", json!([["A", "1", "3"]]));
        check("- Add login (TASK-001 goes first)\n- Add logout (Task 2)", json!([]));
    }

    #[test]
    fn an_item_without_a_text_takes_its_title_from_a_labelled_line() {
        check("### TASK-001\n- Title: A\n- Role: DEV", json!([["TASK-001", "A", "DEV"]]));
        check("- [ ] **TASK-001**\n  - Title:\n    A\n  - Role: DEV", json!([["TASK-001", "A", "DEV"]]));
        check("- TASK-001: A\n  - Name: a field of the form", json!([["TASK-001", "A"]]));
    }
}
