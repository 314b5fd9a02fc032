//! What one line of a text looks like: its markers, its `KEY: value`, its task label. Shared by the readers of blocks and
//! of Markdown; keeps no state from line to line.

use crate::entry::{Key, LONGEST_NAME};

/// A line without its markers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// Columns before the first marker; a tab counts as four.
    pub(crate) indent: usize,
    /// How many `#` it begins with; 0: not a heading.
    pub(crate) heading: usize,
    /// `-`, `*`, `+` or `•`.
    pub(crate) bullet: bool,
    /// `1.` or `1)`.
    pub(crate) numbered: bool,
    /// `[ ]` or `[x]`.
    pub(crate) checkbox: bool,
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    pub(crate) fn read(line: &'a str) -> Self {
        let body = line.trim_start();
        let indent = line[..line.len() - body.len()].chars().map(|c| if c == '\t' { 4 } else { 1 }).sum();
        let mut read = Self {
            indent,
            heading: 0,
            bullet: false,
            numbered: false,
            checkbox: false,
            text: body.trim_end(),
        };
        // Each marker once, in any order: `- [ ] 1. ### text`.
        loop {
            let text = read.text;
            if let Some(rest) = heading(text).filter(|_| read.heading == 0) {
                read.heading = text.len() - text.trim_start_matches('#').len();
                read.text = rest;
            } else if let Some(rest) = bullet(text).filter(|_| !read.bullet) {
                read.bullet = true;
                read.text = rest;
            } else if let Some(rest) = number(text).filter(|_| !read.numbered) {
                read.numbered = true;
                read.text = rest;
            } else if let Some(rest) = checkbox(text).filter(|_| !read.checkbox) {
                read.checkbox = true;
                read.text = rest;
            } else {
                return read;
            }
        }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.bullet || self.numbered || self.checkbox
    }

    /// The key and the value, if this is a field line.
    pub(crate) fn field(&self) -> Option<(Key, &'a str)> {
        field(self.text)
    }
}

fn heading(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches('#');
    let level = text.len() - rest.len();
    (1..=6).contains(&level).then(|| rest.trim_start())
}

fn bullet(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(['-', '*', '+', '•'])?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim_start())
}

fn number(text: &str) -> Option<&str> {
    let digits = text.bytes().take(4).take_while(u8::is_ascii_digit).count();
    let rest = text[digits..].strip_prefix(['.', ')']).filter(|_| digits > 0)?;
    (rest.starts_with(char::is_whitespace) || rest.starts_with("**")).then(|| rest.trim_start())
}

fn checkbox(text: &str) -> Option<&str> {
    let rest = ["[ ]", "[x]", "[X]"].iter().find_map(|mark| text.strip_prefix(mark))?;
    rest.starts_with(char::is_whitespace).then(|| rest.trim_start())
}

fn field(text: &str) -> Option<(Key, &str)> {
    let bare = text.trim_start_matches('*');
    let opened = &text[..text.len() - bare.len()];
    let (at, colon) = bare.char_indices().take(LONGEST_NAME + 4).find(|(_, c)| matches!(c, ':' | '：'))?;
    let name = bare[..at].trim_end();
    let closed_before = name.ends_with('*');
    let key = Key::from_name(name.trim_end_matches('*'))?;
    let mut value = &bare[at + colon.len_utf8()..];
    if !opened.is_empty() && !closed_before {
        value = match value.strip_prefix(opened) {
            Some(rest) => rest,
            None => value.strip_suffix(opened).unwrap_or(value),
        };
    }
    Some((key, value.trim()))
}

/// A value without the `**` that wraps it as a whole.
pub(crate) fn unbold(value: &str) -> &str {
    match value.strip_prefix("**").and_then(|rest| rest.strip_suffix("**")) {
        Some(inner) if !inner.contains("**") => inner.trim(),
        _ => value,
    }
}

pub fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("```") || line.starts_with("~~~")
}

/// Only `-`, `=` or `*`, three at least: the end of a task.
pub(crate) fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3 && line.bytes().all(|b| matches!(b, b'-' | b'=' | b'*'))
}

/// `TASK-001: text` or `Task 2: text`, taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Label<'a> {
    pub(crate) id: &'a str,
    /// `TASK-001`, not merely `Task 1`.
    pub(crate) is_id: bool,
    /// There is a colon, a dash or the like between label and text.
    pub(crate) separated: bool,
    pub(crate) text: &'a str,
}

/// Whether the text is the id of a task and nothing else: `TASK-001`.
pub fn names_task(text: &str) -> bool {
    let text = text.trim();
    label(text).is_some_and(|label| label.is_id && label.id.len() == text.len())
}

/// The task label that `text` begins with, if any.
pub(crate) fn label(text: &str) -> Option<Label<'_>> {
    let bare = text.trim_start_matches(['*', '[', '`']);
    let word = bare.get(..4).filter(|word| word.eq_ignore_ascii_case("task"))?;
    let tail = &bare[word.len()..];
    let joined = tail.strip_prefix(['-', '_']);
    let spaced = tail.strip_prefix(' ').map(|rest| rest.trim_start_matches([' ', '#']));
    let after = joined.or(spaced)?;
    let digits = after.bytes().take(9).take_while(u8::is_ascii_digit).count();
    let rest = &after[digits..];
    if digits == 0 || rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let id = &bare[..bare.len() - rest.len()];
    let closed = rest.trim_start_matches(['*', ']', '`']).trim_start();
    let text = closed.trim_start_matches([':', '：', '-', '–', '—', '.', ')']);
    let separated = text.len() < closed.len() || rest.starts_with(']');
    let text = text.trim_start_matches('*').trim();
    Some(Label { id, is_id: joined.is_some(), separated, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_4_parsing_3_field_lines_carry_any_marker() {
        let check = |line: &str, expect: Option<(Key, &str)>| {
            assert_eq!(Line::read(line).field(), expect, "line {line:?}");
        };
        check("TITLE: Add login", Some((Key::Title, "Add login")));
        check("  title : Add: login ", Some((Key::Title, "Add: login")));
        check("- TITLE: a", Some((Key::Title, "a")));
        check("* **Title:** a", Some((Key::Title, "a")));
        check("1. **TITLE**: a", Some((Key::Title, "a")));
        check("2)**TITLE** : a", Some((Key::Title, "a")));
        check("### TASK_ID: TASK-001", Some((Key::TaskId, "TASK-001")));
        check("**TITLE: a**", Some((Key::Title, "a")));
        check("**TITLE:** a **b**", Some((Key::Title, "a **b**")));
        check("- [ ] Depends on: TASK-000", Some((Key::DependsOn, "TASK-000")));
        check("Estimated Hours: 4", Some((Key::EstimatedHours, "4")));
        check("PRIORITY:", Some((Key::Priority, "")));
        check("TITLE：标题", Some((Key::Title, "标题")));
        check("TITLE Add login", None);
        check("The TITLE: is", None);
        check("\"title\": \"a\",", None);
        check("note: a", None);
        check(": a", None);
        check("", None);
        check("é: a", None);
    }

    #[test]
    fn a_key_s_name_may_be_of_the_longest_and_in_bold() {
        let blanks = " ".repeat(LONGEST_NAME - "Estimatedhours".len());
        let long = format!("**Estimated{blanks}hours**: 4");
        assert_eq!(Line::read(&long).field(), Some((Key::EstimatedHours, "4")));
        let longer = format!("TITLE{}: a", " ".repeat(LONGEST_NAME));
        assert_eq!(Line::read(&longer).field(), None);
    }

    #[test]
    fn markers_are_counted_and_told_apart() {
        let check = |line: &str, expect: (usize, usize, bool, &str)| {
            let Line { indent, heading, text, .. } = Line::read(line);
            assert_eq!((indent, heading, Line::read(line).is_listed(), text), expect, "line {line:?}");
        };
        check("\t  - a", (6, 0, true, "a"));
        check("### a", (0, 3, false, "a"));
        check("####### a", (0, 0, false, "####### a"));
        check("12) a", (0, 0, true, "a"));
        check("1.a", (0, 0, false, "1.a"));
        check(") a", (0, 0, false, ") a"));
        check("- [x] 1. ## a", (0, 2, true, "a"));
    }

    #[test]
    fn an_id_and_nothing_else_names_a_task() {
        assert!(names_task("TASK-001") && names_task(" task_2 "));
        for text in ["TASK-001 a", "TASK-001:", "Task 1", "[TASK-001]", "a"] {
            assert!(!names_task(text), "{text}");
        }
    }

    #[test]
    fn rules_and_fences_are_lines_of_their_own() {
        for line in ["---", "  =====  ", "***", "-=-"] {
            assert!(is_rule(line), "{line}");
        }
        for line in ["--", "--- a", "- - -", "a---"] {
            assert!(!is_rule(line), "{line}");
        }
        assert!(is_fence("  ```json") && is_fence("~~~") && !is_fence("`a`"));
    }

    #[test]
    fn labels_are_taken_apart() {
        let check = |text: &str, expect: Option<(&str, bool, bool, &str)>| {
            let found = label(text).map(|l| (l.id, l.is_id, l.separated, l.text));
            assert_eq!(found, expect, "text {text:?}");
        };
        check("TASK-001: Add login", Some(("TASK-001", true, true, "Add login")));
        check("**TASK-001**: Add login", Some(("TASK-001", true, true, "Add login")));
        check("**TASK-001:** Add login", Some(("TASK-001", true, true, "Add login")));
        check("[task_1] Add login", Some(("task_1", true, true, "Add login")));
        check("TASK-001 - Add", Some(("TASK-001", true, true, "Add")));
        check("TASK-001 Add", Some(("TASK-001", true, false, "Add")));
        check("Task 2: Add", Some(("Task 2", false, true, "Add")));
        check("Task #2 – Add", Some(("Task #2", false, true, "Add")));
        check("Task 2", Some(("Task 2", false, false, "")));
        check("TASK-1a: x", None);
        check("Tasks: x", None);
        check("Task: x", None);
        check("tasé", None);
    }
}
