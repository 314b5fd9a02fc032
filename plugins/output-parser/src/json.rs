//! Step 2: tasks in JSON, be it the whole text, what stands in fences, or values amid prose.

use serde_json::Value;

use crate::{
    blocks::has_title_line,
    entry::{Entry, fold},
    lines::{Line, is_fence},
    relaxed::{Reading, matching, read},
};

/// An object's key under which a list of tasks may stand, in this order of preference.
const LISTS: [&str; 4] = ["tasks", "subtasks", "tasklist", "items"];

/// How often a text may be looked at in vain before it is given up: what keeps a hostile text linear.
const MAX_PASSES: usize = 4;

/// The tasks of the first place that has any with a title; else the untitled ones that were found.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut untitled = Vec::new();
    for place in [in_whole, in_fences, in_prose] {
        let found = place(text);
        if found.iter().any(Entry::has_title) {
            return found;
        }
        if untitled.is_empty() {
            untitled = found;
        }
    }
    untitled
}

/// Whether an array or object with a quoted title key is never closed.
pub(crate) fn is_truncated(text: &str) -> bool {
    let mut at = 0;
    while let Some(start) = next_bracket(text, at) {
        match matching(text, start) {
            Some(end) => at = end,
            // What follows is inside; if there is no title here, no later bracket has one.
            None => return has_quoted_title(&text[start..]),
        }
    }
    false
}

fn in_whole(text: &str) -> Vec<Entry> {
    whole(text).map(|value| Shape::of(value).into_entries()).unwrap_or_default()
}

fn in_fences(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    for block in fenced(text) {
        match whole(block) {
            Some(value) => found.extend(Shape::of(value).into_entries()),
            None => found.extend(in_prose(block)),
        }
    }
    found
}

/// Values that belong to a field of the block format are that field's text, not tasks.
fn in_prose(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut blocks = None;
    // Whether the last value's line is a field line: asked once per line.
    let mut line: Option<bool> = None;
    let mut last = 0;
    for (start, value) in values(text) {
        let begin = text[last..start].rfind('\n').map(|at| last + at + 1);
        last = start;
        let in_field = match (begin, line) {
            (None, Some(in_field)) => in_field,
            (begin, _) => {
                let begin = begin.unwrap_or(0);
                let in_field = Line::read(&text[begin..start]).field().is_some();
                line = Some(in_field);
                in_field
            }
        };
        if in_field {
            continue;
        }
        match Shape::of(value) {
            Shape::List(entries) => found.extend(entries),
            Shape::One(entry) => {
                // In an answer made of blocks a lone object is an example of data.
                if !*blocks.get_or_insert_with(|| has_title_line(text)) {
                    found.push(*entry);
                }
            }
            Shape::Other => {}
        }
    }
    found
}

/// The text as one value, with nothing around it.
fn whole(text: &str) -> Option<Value> {
    let text = text.trim();
    match read(text, 0) {
        Reading::Value(value, end) if end == text.len() => Some(value),
        _ => None,
    }
}

/// The contents of each fenced block; one that is never closed runs to the end.
fn fenced(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        if is_fence(line) {
            let marks = fence_marks(line);
            match open {
                None => open = Some((next, marks)),
                // Only a bare fence of the same kind, at least as long, closes.
                Some((start, opening)) if marks.starts_with(opening) && line.trim() == marks => {
                    blocks.push(&text[start..at]);
                    open = None;
                }
                Some(_) => {}
            }
        }
        at = next;
    }
    if let Some((start, _)) = open {
        blocks.push(&text[start..]);
    }
    blocks
}

fn fence_marks(line: &str) -> &str {
    let line = line.trim();
    let mark = if line.starts_with('`') { '`' } else { '~' };
    &line[..line.len() - line.trim_start_matches(mark).len()]
}

/// The complete arrays and objects of a text, outermost only, with where they begin. What stands inside one
/// that is spoilt or never closed does not count.
fn values(text: &str) -> Vec<(usize, Value)> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut patience = text.len().saturating_mul(MAX_PASSES);
    while let Some(start) = next_bracket(text, at) {
        match read(text, start) {
            Reading::Value(value, end) => {
                found.push((start, value));
                at = end;
            }
            Reading::Unclosed => break,
            Reading::Malformed { meant: true, .. } => match matching(text, start) {
                Some(end) => at = end,
                None => break,
            },
            Reading::Malformed { meant: false, seen } => {
                if seen > patience {
                    break;
                }
                patience -= seen;
                at = start + 1;
            }
        }
    }
    found
}

fn next_bracket(text: &str, from: usize) -> Option<usize> {
    text.as_bytes()[from..].iter().position(|b| matches!(b, b'[' | b'{')).map(|at| from + at)
}

/// What a value says about tasks.
enum Shape {
    /// An array of objects, or an object that holds one.
    List(Vec<Entry>),
    /// An object with a title.
    One(Box<Entry>),
    Other,
}

impl Shape {
    fn of(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::list(items).unwrap_or(Self::Other),
            Value::Object(mut object) => {
                for list in LISTS {
                    let name = object
                        .iter()
                        .find(|(name, value)| value.is_array() && fold(name).as_deref() == Some(list))
                        .map(|(name, _)| name.clone());
                    // An empty list is an answer too: no tasks, whatever the object's own title says.
                    if let Some(Value::Array(items)) = name.and_then(|name| object.get_mut(&name)) {
                        if items.is_empty() {
                            return Self::Other;
                        }
                        if let Some(list) = Self::list(std::mem::take(items)) {
                            return list;
                        }
                    }
                }
                let entry = Entry::from_object(object);
                if entry.has_title() { Self::One(Box::new(entry)) } else { Self::Other }
            }
            _ => Self::Other,
        }
    }

    /// Members that are no objects have no title: they are kept to be dropped by name.
    fn list(items: Vec<Value>) -> Option<Self> {
        if !items.iter().any(Value::is_object) {
            return None;
        }
        let entry = |item| match item {
            Value::Object(object) => Entry::from_object(object),
            _ => Entry::default(),
        };
        Some(Self::List(items.into_iter().map(entry).collect()))
    }

    fn into_entries(self) -> Vec<Entry> {
        match self {
            Self::List(entries) => entries,
            Self::One(entry) => vec![*entry],
            Self::Other => Vec::new(),
        }
    }
}

/// A title key in quotes, followed by a colon or by the end of the text.
fn has_quoted_title(text: &str) -> bool {
    ['"', '\''].into_iter().any(|quote| {
        let mut rest = text;
        while let Some(at) = rest.find(quote) {
            rest = &rest[at + 1..];
            let Some(end) = rest.find(quote) else { return false };
            let after = rest[end + 1..].trim_start();
            let is_title = matches!(fold(&rest[..end]).as_deref(), Some("title" | "name"));
            if is_title && (after.is_empty() || after.starts_with(':')) {
                return true;
            }
            // Not past the closing quote: it may be the opening one of the key.
            rest = &rest[end..];
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Key;

    fn check(text: &str, expect: &[&str]) {
        let found = entries(text);
        let titles: Vec<&str> = found.iter().map(|e| e.get(Key::Title).as_str().unwrap_or("-")).collect();
        assert_eq!(titles, expect, "text:\n{text}");
    }

    #[test]
    fn the_whole_text_in_each_shape() {
        check(r#"[{"title": "A"}, {"name": "B"},]"#, &["A", "B"]);
        check(r#"{"tasks": [{"title": "A"}]}"#, &["A"]);
        check(r#"{"title": "Plan", "Sub-Tasks": [{"title": "A"}]}"#, &["A"]);
        check(r#"{"task_list": [{"TITLE": "A"}], "other": 1}"#, &["A"]);
        check(r#"{"Items": [{"Title": "A"}, 5, {"title": 6}]}"#, &["A", "-", "-"]);
        check(r#"{"title": "A", "role": "DEV"}"#, &["A"]);
        check(r#"{"title": "A", "items": ["step"]}"#, &["A"]);
    }

    #[test]
    fn values_that_are_no_tasks() {
        for text in
            ["[]", "[1, 2]", r#"["A"]"#, r#"{"role": "DEV"}"#, r#"{"title": "P", "tasks": []}"#, "5", ""]
        {
            check(text, &[]);
        }
    }

    #[test]
    fn fenced_values_add_up() {
        check(
            "First:\n```json\n[{\"title\": \"A\"}]\n```\nthen\n~~~\n{\"title\": \"B\"}\n~~~\n[{\"title\": \"not this\"}]",
            &["A", "B"],
        );
        check("```json\n// two\n[{\"title\": \"A\"}]", &["A"]);
        check("```json\n[{\"title\": \"A\"}]```", &["A"]);
        check("````\n```\n[{\"title\": \"A\"}]\n```\n````", &["A"]);
    }

    #[test]
    fn a_fence_without_tasks_hides_nothing() {
        check("```sh\nls\n```\nTasks: [{\"title\": \"A\"}].", &["A"]);
    }

    #[test]
    fn balanced_values_in_prose_count() {
        check("On [0, 1) and [x]: [{\"title\": \"A\"}, {\"title\": \"B\"}] {done}", &["A", "B"]);
        check("{\"title\": \"A\"}\n{\"title\": \"B\"}", &["A", "B"]);
    }

    #[test]
    fn nothing_inside_a_spoilt_or_unclosed_value_counts() {
        check("[{\"title\": \"A\"}, {\"title\": \"B\"}, {\"tit", &[]);
        check("[{\"title\": \"A\"}, {\"title\": B}]", &[]);
        check("[{\"title\": \"A\"}, {\"title\": B}] but [{\"title\": \"C\"}]", &["C"]);
        check("{\"tasks\": [{\"title\": \"A\"}]", &[]);
    }

    #[test]
    fn data_in_a_block_is_that_blocks_text() {
        check("TITLE: A\nDESCRIPTION: send {\"title\": \"x\"}\nROLE: DEV", &[]);
        check("TITLE: A\nDESCRIPTION: send\n{\"title\": \"x\"}\nROLE: DEV", &[]);
    }

    #[test]
    fn an_unclosed_value_with_a_quoted_title_is_truncated() {
        let check = |text: &str, expect: bool| assert_eq!(is_truncated(text), expect, "{text}");
        check("[{\"title\": \"A\"}, {\"ti", true);
        check("Sure: {\"tasks\": [{\"Title\" : \"A", true);
        check("[{\"title\"", true);
        check("[{'title': 'A'", true);
        check("```json\n[{\"id\": 1, \"name\": \"A\"\n```", true);
        check("[{\"description\": \"A\"", false);
        check("[{\"title\": \"A\"}]", false);
        check("a [ b title", false);
        check("[ ] TASK [x] \"title\":", false);
    }

    #[test]
    fn hostile_texts_are_read_in_linear_time() {
        let size = 1 << 20;
        for unit in [
            "[",
            "{",
            "[{",
            "{\"a\":",
            "[\"",
            "[1,",
            "\"",
            "{\"title\":[",
            "[]",
            "[,",
            "```\n",
            "[\"\\\"",
            "]",
            "\",[],[\"",
        ] {
            let text = unit.repeat(size / unit.len());
            let started = std::time::Instant::now();
            assert!(entries(&text).is_empty(), "{unit}");
            is_truncated(&text);
            assert!(started.elapsed().as_secs() < 5, "{unit} took {:?}", started.elapsed());
        }
    }
}
