//! Tasks in JSON, be it the whole text, what stands in fences, or values amid prose. Step 2 of reading an answer.

use serde_json::Value;

use crate::{
    entry::{Entry, Key, LONGEST_NAME, fold},
    held::Fields,
    lines::is_fence,
    relaxed::{Reading, matching, read},
};

/// An object's key under which a list of tasks may stand, in this order of preference. The last may hold anything.
const LISTS: [&str; 4] = ["tasks", "subtasks", "tasklist", "items"];
const ANYTHING: &str = "items";

/// How often a text may be looked at in vain before it is given up: what keeps a hostile text linear.
const MAX_PASSES: usize = 4;

/// The tasks of the first place that has any with a title; else the untitled ones that were found.
pub fn entries(text: &str) -> Vec<Entry> {
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

/// What a value holds of tasks, whoever wrote it and in whatever notation.
#[derive(Debug)]
pub enum Listed {
    /// An object with an array of objects under a key that says that they are tasks.
    Tasks(Vec<Entry>),
    /// An array of objects, or an object with one under `items`.
    Objects(Vec<Entry>),
    /// One object, with a title.
    Lone(Entry),
    Nothing,
}

impl Listed {
    pub fn of(value: Value) -> Self {
        match Shape::of(value) {
            Shape::List { entries, is_named: true } => Self::Tasks(entries),
            Shape::List { entries, is_named: false } => Self::Objects(entries),
            Shape::One(entry) => Self::Lone(*entry),
            Shape::Other => Self::Nothing,
        }
    }
}

/// Whether a key's name says that tasks stand under it.
pub fn lists_tasks(name: &str) -> bool {
    fold(name).is_some_and(|name| name != ANYTHING && LISTS.contains(&name.as_str()))
}

/// Whether an array or object with a quoted title key is never closed.
pub fn is_truncated(text: &str) -> bool {
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
    for (begin, block) in fenced(text) {
        found.extend(values(block).into_iter().map(|found| found.moved(begin)));
    }
    tasks_among(text, found)
}

fn in_prose(text: &str) -> Vec<Entry> {
    tasks_among(text, values(text))
}

/// The tasks that the values of a text mean. Values that belong to a field of the block format are that field's text.
fn tasks_among(text: &str, values: Vec<Found>) -> Vec<Entry> {
    if values.is_empty() {
        return Vec::new();
    }
    let places: Vec<(usize, usize)> = values.iter().map(|found| (found.start, found.end)).collect();
    let fields = Fields::around(text, &places);
    let mut found = Vec::new();
    for Found { start, end, value } in values {
        match Shape::of(value) {
            Shape::Other => {}
            shape if fields.hold(start, end, matches!(shape, Shape::One(_))) => drop(shape),
            shape => found.extend(shape.into_entries()),
        }
    }
    found
}

/// The text as one value, with nothing around it.
pub fn whole(text: &str) -> Option<Value> {
    let text = text.trim();
    match read(text, 0) {
        Reading::Value(value, end) if end == text.len() => Some(value),
        _ => None,
    }
}

/// The contents of each fenced block, with where they begin; one that is never closed runs to the end.
pub fn fenced(text: &str) -> Vec<(usize, &str)> {
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
                    blocks.push((start, &text[start..at]));
                    open = None;
                }
                Some(_) => {}
            }
        }
        at = next;
    }
    if let Some((start, _)) = open {
        blocks.push((start, &text[start..]));
    }
    blocks
}

fn fence_marks(line: &str) -> &str {
    let line = line.trim();
    let mark = if line.starts_with('`') { '`' } else { '~' };
    &line[..line.len() - line.trim_start_matches(mark).len()]
}

/// A value and where it stands.
struct Found {
    start: usize,
    end: usize,
    value: Value,
}

impl Found {
    fn moved(self, by: usize) -> Self {
        Self { start: self.start + by, end: self.end + by, ..self }
    }
}

/// The complete arrays and objects amid a text, outermost only.
pub fn amid(text: &str) -> impl Iterator<Item = Value> {
    values(text).into_iter().map(|found| found.value)
}

/// The same with where they stand. What stands inside one that is spoilt or never closed
/// does not count.
fn values(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut patience = text.len().saturating_mul(MAX_PASSES);
    // Up to here, every bracket is known to be closed again.
    let mut closed = 0;
    while let Some(start) = next_bracket(text, at) {
        match read(text, start) {
            Reading::Value(value, end) => {
                found.push(Found { start, end, value });
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
                if start >= closed && begins_data(&text[start..]) {
                    match matching(text, start) {
                        Some(end) => closed = end,
                        None => break,
                    }
                }
                at = start + 1;
            }
        }
    }
    found
}

/// Whether what follows a bracket is not JSON but much like it, rather than prose: a comment, an object in an array,
/// a key of ours without quotes, any key in the wrong ones.
fn begins_data(text: &str) -> bool {
    let (bracket, rest) = text.split_at(1);
    let rest = rest.trim_start();
    if rest.starts_with("//") || rest.starts_with("/*") {
        return true;
    }
    if bracket == "[" {
        return rest.starts_with('{');
    }
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let name = rest.bytes().take(LONGEST_NAME).take_while(is_name).count();
    let is_key = fold(&rest[..name])
        .is_some_and(|name| LISTS.contains(&name.as_str()) || Key::from_name(&name).is_some());
    rest.starts_with('\'') || (is_key && rest[name..].trim_start().starts_with(':'))
}

fn next_bracket(text: &str, from: usize) -> Option<usize> {
    text.as_bytes()[from..].iter().position(|b| matches!(b, b'[' | b'{')).map(|at| from + at)
}

/// What a value says about tasks.
enum Shape {
    /// An array of objects, or an object that holds one.
    List {
        entries: Vec<Entry>,
        is_named: bool,
    },
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
                        if let Some(Self::List { entries, .. }) = Self::list(std::mem::take(items)) {
                            return Self::List { entries, is_named: list != ANYTHING };
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
        Some(Self::List { entries: items.into_iter().map(entry).collect(), is_named: false })
    }

    fn into_entries(self) -> Vec<Entry> {
        match self {
            Self::List { entries, .. } => entries,
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
            // JSON in a string has its quotes escaped.
            let name = rest[..end].trim_end_matches('\\');
            let is_title = matches!(fold(name).as_deref(), Some("title" | "name"));
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

    fn check(text: &str, expect: &[&str]) {
        let found = entries(text);
        let titles: Vec<&str> = found.iter().map(|e| e.get(Key::Title).as_str().unwrap_or("-")).collect();
        assert_eq!(titles, expect, "text:\n{text}");
    }

    #[test]
    fn contract_4_parsing_2_the_whole_text_in_each_shape() {
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
    fn contract_4_parsing_2_fenced_values_add_up() {
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
    fn only_a_bare_fence_of_the_same_kind_and_length_closes() {
        let check = |text: &str, expect: &[(usize, &str)]| assert_eq!(fenced(text), expect, "{text}");
        check("```a\n~~~\n```\nb", &[(5, "~~~\n")]);
        check("~~~\n```\n~~~~\n", &[(4, "```\n")]);
        check("````\n```\n````\n", &[(5, "```\n")]);
        check("```\na\n```json\n  ````  \nb", &[(4, "a\n```json\n")]);
        check("a\n```\nb", &[(6, "b")]);
    }

    #[test]
    fn a_fence_in_the_text_of_a_value_opens_nothing() {
        check("[{\"title\": \"A\", \"description\": \"as\n```\"},\n{\"title\": \"B\"}]", &["A", "B"]);
    }

    #[test]
    fn what_stands_above_a_fence_is_told_from_its_blocks() {
        let fence = "```json\n[{\"title\": \"A\"}]\n```\n[{\"title\": \"not this\"}]";
        for above in ["Title: Plan\n", "Title: Login plan\nDescription: how to log in\n"] {
            check(&format!("{above}{fence}"), &["A"]);
        }
    }

    #[test]
    fn a_value_is_the_whole_text_or_amid_it() {
        let five = || Some(Value::from(5));
        assert_eq!((whole(" 5\n"), whole("5 6"), whole("five")), (five(), None, None));
        let found: Vec<Value> = amid("a [1] b {\"c\": 2}").collect();
        assert_eq!(found, [serde_json::json!([1]), serde_json::json!({"c": 2})]);
    }

    #[test]
    fn what_stands_under_items_may_be_anything() {
        let of = |name: &str| Listed::of(serde_json::json!({name: [{"title": "A"}]}));
        assert!(matches!(of("tasks"), Listed::Tasks(_)) && matches!(of("items"), Listed::Objects(_)));
    }

    #[test]
    fn a_key_says_that_tasks_stand_under_it() {
        for (name, expect) in
            [("Tasks", true), ("sub-tasks", true), ("task_list", true), ("items", false), ("task", false)]
        {
            assert_eq!(lists_tasks(name), expect, "{name}");
        }
    }

    #[test]
    fn contract_4_parsing_2_balanced_values_in_prose_count() {
        check("On [0, 1) and [x]: [{\"title\": \"A\"}, {\"title\": \"B\"}] {done}", &["A", "B"]);
        check("{\"title\": \"A\"}\n{\"title\": \"B\"}", &["A", "B"]);
    }

    #[test]
    fn contract_4_parsing_5_nothing_inside_a_spoilt_or_unclosed_value_counts() {
        check("[{\"title\": \"A\"}, {\"title\": \"B\"}, {\"tit", &[]);
        check("[{\"title\": \"A\"}, {\"title\": B}]", &[]);
        check("[{\"title\": \"A\"}, {\"title\": B}] but [{\"title\": \"C\"}]", &["C"]);
        check("{\"tasks\": [{\"title\": \"A\"}]", &[]);
        check("[ // tasks\n{\"title\":\"A\"}, {\"title\":\"B\"}, {\"ti", &[]);
        check("{tasks: [{\"title\": \"A\"}, {\"title\": \"B\"}]", &[]);
        check("```json\n{tasks: [{\"title\": \"A\"}]\n```", &[]);
        check("[{'title': 'A'}, {\"title\": \"B\"}", &[]);
        check("{ 'tasks': [{\"title\": \"A\"}]", &[]);
    }

    #[test]
    fn a_bracket_in_prose_spoils_nothing() {
        for prose in ["[0, 1) ", "Open it with { first: ", "{ or [, ", "On [a, {b}: ", "{name} "] {
            check(&format!("{prose}[{{\"title\": \"A\"}}]"), &["A"]);
        }
        check(&format!("{}[{{\"title\": \"A\"}}]", "[0, 1) ".repeat(100)), &["A"]);
        // Four times over, and then it is given up.
        let deep = |depth| format!("{}\"{}\" x [{{\"title\": \"A\"}}]", "[".repeat(depth), "a".repeat(1_000));
        check(&deep(3), &["A"]);
        check(&deep(6), &[]);
        check("{tasks: [{\"title\": \"A\"}]}", &["A"]);
    }

    #[test]
    fn data_in_a_block_is_that_blocks_text() {
        check("TITLE: A\nDESCRIPTION: send {\"title\": \"x\"}\nROLE: DEV", &[]);
        check("TITLE: A\nDESCRIPTION: send\n{\"title\": \"x\"}\nROLE: DEV", &[]);
        check("TITLE: A\nDESCRIPTION: send\n```json\n{\"title\": \"x\"}\n```\nROLE: DEV\n\nTITLE: B", &[]);
        check("TITLE: A\nDESCRIPTION: returns\n[{\"id\": 1, \"name\": \"bob\"}]\nROLE: DEV", &[]);
        check("TITLE: A\nDESCRIPTION:\n```\n[\n{\"name\": \"bob\"}\n]\n```\nTITLE: B", &[]);
        check("TITLE: A\nROLE: DEV\nTITLE: B\nDESCRIPTION: send\n{\"title\": \"x\"}", &[]);
        check("```\nTITLE: A\nDESCRIPTION: send\n```json\n{\"title\": \"x\"}\n```\nROLE: DEV\n```", &[]);
    }

    #[test]
    fn a_line_or_two_above_json_make_no_blocks() {
        let two = "{\"title\": \"A\",\"hours\":4}\n{\"title\": \"B\"}";
        for above in [
            "Title: Login plan\n",
            "Title: Login plan\nDescription: how to log in\n",
            "Title: Login plan\nRole: DEV\n",
            "Description: the plan\n",
            "Title: Login plan\nDescription: how\n\n---\n",
        ] {
            check(&format!("{above}{two}"), &["A", "B"]);
            check(&format!("{above}```json\n[{}]\n```\nDone.", two.replace('\n', ",")), &["A", "B"]);
        }
        check("Description: the plan\n[{\"title\": \"A\"}]\nHours: 8", &["A"]);
        check("Title: Plan\n[{\"title\": \"A\",\n\"description\": \"x\nROLE: DEV\"}]", &["A"]);
    }

    #[test]
    fn contract_4_parsing_5_an_unclosed_value_with_a_quoted_title_is_truncated() {
        let check = |text: &str, expect: bool| assert_eq!(is_truncated(text), expect, "{text}");
        check("[{\"title\": \"A\"}, {\"ti", true);
        check("Sure: {\"tasks\": [{\"Title\" : \"A", true);
        check("[{\"title\"", true);
        check(r#""[{\"title\": \"A\""#, true);
        check(r#""{\"tasks\": [{\\\"name\\\": \"A"#, true);
        check("[ // tasks\n{\"title\":\"A\"}, {\"ti", true);
        check("{tasks: [{\"title\": \"A\"}, {\"title\": \"B\"}]", true);
        check("[{'title': 'A'", true);
        check("```json\n[{\"id\": 1, \"name\": \"A\"\n```", true);
        check("[{\"description\": \"A\"", false);
        check("[{\"title\": \"A\"}]", false);
        check("a [ b title", false);
        check("[ ] TASK [x] \"title\":", false);
    }

    #[test]
    fn hostile_texts_are_read_in_linear_time() {
        // Quadratic, it would take minutes even so.
        let size = 1 << 18;
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
            "{a:",
            "{a:}",
            "{'",
            "[//",
            "[ ",
            "TITLE: a {} ",
            "DESCRIPTION: a\n{}\n",
        ] {
            let text = unit.repeat(size / unit.len());
            let started = std::time::Instant::now();
            assert!(entries(&text).is_empty(), "{unit}");
            is_truncated(&text);
            assert!(started.elapsed().as_secs() < 5, "{unit} took {:?}", started.elapsed());
        }
    }
}
