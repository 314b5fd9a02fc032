//! YAML as the plain values that it stands for. Bounded: it nests so deep and no deeper, holds so many values and no more, and
//! has no aliases, which a few lines would otherwise make gigabytes of.

use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// A list of tasks is four levels deep.
const MAX_DEPTH: usize = 32;
/// A task has a dozen values.
const MAX_VALUES: usize = 20_000;

/// Why a text can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The documents of a text. Scalars are strings, however they look, or `null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, Fault> {
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                reader.event(event).map_err(|what| Fault { line: span.start.line(), what })?
            }
            Err(error) => return Err(Fault { line: error.marker().line(), what: error.info().to_owned() }),
        }
    }
    Ok(reader.documents)
}

#[derive(Default)]
struct Reader {
    documents: Vec<Value>,
    /// Outermost first.
    open: Vec<Open>,
    values: usize,
}

/// A collection whose end is yet to come.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Table(Map<String, Value>, Option<String>),
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, ..) => self.value(scalar(&text, style)),
            Event::SequenceStart(..) => self.open(Open::List(Vec::new())),
            Event::MappingStart(..) => self.open(Open::Table(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(items)) => self.value(Value::Array(items)),
                Some(Open::Table(table, _)) => self.value(Value::Object(table)),
                None => Ok(()),
            },
            Event::Alias(_) => Err("an alias (`*name`) is not read; write out what it stands for".into()),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, collection: Open) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("it nests more than {MAX_DEPTH} levels deep"));
        }
        self.open.push(collection);
        Ok(())
    }

    fn value(&mut self, value: Value) -> Result<(), String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("it holds more than {MAX_VALUES} values"));
        }
        match self.open.last_mut() {
            None => self.documents.push(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Table(table, key @ None)) => {
                let name = match value {
                    Value::String(name) => name,
                    Value::Null => String::new(),
                    _ => return Err("a key is no text".into()),
                };
                // The last would win, and the first be lost without a word.
                if table.contains_key(&name) {
                    return Err(format!("the key {name:?} is there twice"));
                }
                *key = Some(name);
            }
            Some(Open::Table(table, key)) => {
                table.insert(key.take().unwrap_or_default(), value);
            }
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_null { Value::Null } else { Value::String(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expect: Value) {
        assert_eq!(documents(text).map(Value::Array), Ok(expect), "text:\n{text}");
    }

    #[track_caller]
    fn check_fault(text: &str, line: usize, what: &str) {
        let fault = documents(text).unwrap_err();
        assert!(fault.line == line && fault.what.contains(what), "{fault}\ntext:\n{text}");
    }

    #[test]
    fn a_list_of_tasks() {
        check(
            "tasks:\n  - id: TASK-001   # the first\n    role: DEV\n    description: \"Implement login\"\n    hours: 4\n    dependencies: [TASK-000, 'T 2']\n    notes: ~\n    more: |\n      one\n      two\n",
            json!([{"tasks": [{"id": "TASK-001", "role": "DEV", "description": "Implement login", "hours": "4",
                "dependencies": ["TASK-000", "T 2"], "notes": null, "more": "one\ntwo\n"}]}]),
        );
    }

    #[test]
    fn json_is_yaml_too_and_documents_follow_each_other() {
        check("{\"a\": [1, true, null, \"null\"]}", json!([{"a": ["1", "true", null, "null"]}]));
        check("a: 1\n---\n- b\n", json!([{"a": "1"}, ["b"]]));
        check("", json!([]));
        check("~: a", json!([{"": "a"}]));
        check("just prose, and more", json!(["just prose, and more"]));
    }

    #[test]
    fn what_can_t_be_read_is_told_with_its_line() {
        check_fault("a: 1\nb: [1, 2\nc: 3\n", 3, "");
        check_fault("a:\n\tb: 2\n", 2, "tab");
        check_fault("a: 1\nb: 2\na: 3\n", 3, "\"a\" is there twice");
        check_fault("? [a]\n: 1\n", 1, "no text");
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(", ")));
        }
        check_fault(&bomb, 2, "alias");
        check_fault("a: &a\n  b: *a\n", 2, "alias");
        check_fault(&"[".repeat(40), 1, "32 levels");
        check_fault(&"- ".repeat(40), 1, "32 levels");
        let deep: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        check_fault(&deep, 33, "32 levels");
        check_fault(&"- a\n".repeat(MAX_VALUES + 1), MAX_VALUES + 1, "values");
    }
}
