//! The block format, step 3 of reading an answer: one `KEY: value` per line, with or without rules or blank lines between tasks.

use serde_json::Value;

use crate::{
    entry::{Entry, Key},
    lines::{Line, is_fence, is_rule, label, unbold},
};

/// The blocks of a text in order, those without a title included.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut blocks = Blocks::default();
    for line in text.lines().filter(|line| !is_fence(line)) {
        blocks.line(line);
    }
    blocks.end_task();
    blocks.done
}

#[derive(Default)]
struct Blocks {
    done: Vec<Entry>,
    current: Entry,
    /// Keys that had their line in the current block, be it empty.
    seen: Vec<Key>,
    open: Open,
}

/// What the next line may belong to.
#[derive(Default)]
enum Open {
    #[default]
    Nothing,
    /// A key whose own line was empty.
    Value(Key),
    /// A key whose value came as list items below it.
    List(Key, Vec<Value>),
    Description(Vec<String>),
}

impl Blocks {
    fn line(&mut self, raw: &str) {
        if is_rule(raw) {
            self.end_task();
            return;
        }
        let line = Line::read(raw);
        if let Some((key, value)) = line.field() {
            self.field(key, value);
            return;
        }
        match &mut self.open {
            Open::Nothing => {}
            Open::Description(lines) => {
                if is_task_heading(&line) {
                    self.close();
                } else {
                    lines.push(raw.trim_end().to_owned());
                }
            }
            Open::Value(_) if line.text.is_empty() => {}
            Open::Value(key) if ends_empty(*key, &line) => self.close(),
            Open::Value(key) => {
                let key = *key;
                if line.bullet && matches!(key, Key::Keywords | Key::DependsOn) {
                    self.open = Open::List(key, vec![Value::from(unbold(line.text))]);
                } else {
                    self.current.set(key, Value::from(unbold(line.text)));
                    self.open = Open::Nothing;
                }
            }
            Open::List(_, items) => {
                if line.bullet {
                    items.push(Value::from(unbold(line.text)));
                } else {
                    self.close();
                }
            }
        }
    }

    fn field(&mut self, key: Key, value: &str) {
        self.close();
        let starts_task = match key {
            Key::TaskId => !self.seen.is_empty(),
            Key::Title => self.seen.contains(&Key::Title),
            _ => false,
        };
        if starts_task {
            self.end_task();
        }
        self.seen.push(key);
        if key == Key::Description {
            self.open = Open::Description(vec![value.to_owned()]);
        } else if value.is_empty() {
            self.open = Open::Value(key);
        } else {
            self.current.set(key, Value::from(unbold(value)));
        }
    }

    /// Stores what the last lines added up to.
    fn close(&mut self) {
        match std::mem::take(&mut self.open) {
            Open::Nothing | Open::Value(_) => {}
            Open::List(key, items) => self.current.set(key, Value::Array(items)),
            Open::Description(lines) => {
                let text = lines.join("\n");
                if !text.trim().is_empty() {
                    self.current.set(Key::Description, Value::from(text.trim()));
                }
            }
        }
    }

    fn end_task(&mut self) {
        self.close();
        if !self.seen.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.seen.clear();
        }
    }
}

/// `### Task 2` or `**TASK-002**`: models set it above a block, where it would run into the description before it.
fn is_task_heading(line: &Line<'_>) -> bool {
    match label(line.text) {
        Some(label) => line.heading > 0 || line.text.starts_with("**") || label.text.is_empty(),
        None => false,
    }
}

/// Whether a line below an empty key is the next task's heading rather than the key's value. `TASK-001` alone is a
/// value where an id is expected, and a title may be in bold.
fn ends_empty(key: Key, line: &Line<'_>) -> bool {
    if !is_task_heading(line) {
        return false;
    }
    let in_bold = !line.is_listed() && line.text.starts_with("**");
    line.heading > 0
        || match key {
            Key::TaskId | Key::DependsOn => in_bold,
            Key::Title => in_bold && label(line.text).is_some_and(|label| label.text.is_empty()),
            _ => !line.is_listed(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each task as the list of its non-empty values, in the order of keys.
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
    fn contract_4_parsing_3_blocks_divided_by_blank_lines() {
        check(
            "Here you go:\n\nTASK_ID: TASK-001\nTITLE: A\nDESCRIPTION: do a\nROLE: DEV\nESTIMATED_HOURS: 4\nPRIORITY: 1\nKEYWORDS: x, y\n\nTASK_ID: TASK-002\nTITLE: B\nDEPENDS_ON: TASK-001\n",
            json!([["TASK-001", "A", "do a", "DEV", "4", "1", "x, y"], ["TASK-002", "B", "TASK-001"]]),
        );
    }

    #[test]
    fn contract_4_parsing_3_blocks_divided_by_rules() {
        check(
            "TITLE: A\nROLE: QA\n---\nTITLE: B\n=====\nTITLE: C\n***\n",
            json!([["A", "QA"], ["B"], ["C"]]),
        );
    }

    #[test]
    fn contract_4_parsing_3_dashes_inside_a_line_never_split() {
        check("TITLE: A --- B\nDESCRIPTION: x --- y\nROLE: QA", json!([["A --- B", "x --- y", "QA"]]));
    }

    #[test]
    fn contract_4_parsing_3_a_title_after_a_title_starts_a_task() {
        check("TITLE: A\nTITLE: B\nName: C", json!([["A"], ["B"], ["C"]]));
        check("ROLE: DEV\nTITLE: A\nROLE: QA", json!([["A", "DEV"]]));
    }

    #[test]
    fn contract_4_parsing_3_a_task_id_after_any_field_starts_a_task() {
        check("ROLE: DEV\nTASK_ID: 1\nTITLE: A\nID: 2", json!([["DEV"], ["1", "A"], ["2"]]));
    }

    #[test]
    fn contract_4_parsing_3_a_description_runs_to_the_next_key_or_task() {
        check(
            "TITLE: A\nDESCRIPTION: one\n\n  - two\nthree\n\nROLE: QA",
            json!([["A", "one\n\n  - two\nthree", "QA"]]),
        );
        check("TITLE: A\nDESCRIPTION:\n\nbelow\n---\nTITLE: B", json!([["A", "below"], ["B"]]));
        check(
            "### Task 1\nTITLE: A\nDESCRIPTION: one\n\n### Task 2\nTITLE: B\nDESCRIPTION: two\n**TASK-003**\nTITLE: C",
            json!([["A", "one"], ["B", "two"], ["C"]]),
        );
        check("TITLE: A\nDESCRIPTION: one\nTask 2 is next", json!([["A", "one\nTask 2 is next"]]));
    }

    #[test]
    fn contract_4_parsing_3_an_empty_key_takes_the_next_line_that_is_not_blank() {
        check("TITLE:\n\n  A\nignored\nROLE:\nPRIORITY:\n\n2", json!([["A", "2"]]));
        check("TITLE: A\nKEYWORDS:\n- x\n- y\nDEPENDS_ON:\n- TASK-1", json!([["A", ["x", "y"], ["TASK-1"]]]));
    }

    #[test]
    fn an_empty_key_leaves_the_next_task_s_heading_alone() {
        for key in ["DEPENDS_ON:", "KEYWORDS:", "ROLE:", "**Depends on:**"] {
            for heading in ["### TASK-002", "\n**TASK-002**", "\n\n## Task 2: more", "**Task 2: more**"] {
                let text = format!("TITLE: A\n{key}\n{heading}\nTITLE: B\nROLE: QA");
                check(&text, json!([["A"], ["B", "QA"]]));
            }
        }
        check("TITLE: A\nDEPENDS_ON:\nTASK-001", json!([["A", "TASK-001"]]));
        check("TITLE: A\nDEPENDS_ON:\n- **TASK-001**", json!([["A", ["TASK-001"]]]));
        check("TASK_ID:\nTASK-001\nTITLE:\n**Task 2: more**", json!([["TASK-001", "Task 2: more"]]));
    }

    #[test]
    fn contract_4_parsing_3_fences_are_dropped_and_markers_tolerated() {
        check(
            "```text\n- **TITLE:** **A**\n- **ROLE**: DEV\n```\n2. TITLE: B\n## TITLE: C",
            json!([["A", "DEV"], ["B"], ["C"]]),
        );
    }

    #[test]
    fn contract_4_parsing_3_prose_before_the_first_key_is_ignored() {
        check("Sure.\n\n---\nI thought of three.\n", json!([]));
    }
}
