//! One task as it was written: the eight keys of a task, their aliases, and raw values by key. No rule about
//! what a value means lives here.

use serde_json::{Map, Value};

/// What a task may say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    TaskId,
    Title,
    Description,
    Role,
    EstimatedHours,
    Priority,
    Keywords,
    DependsOn,
}

/// Canonical name first, then aliases; compared without case, `_`, `-` and space.
const NAMES: [(Key, &[&str]); 8] = [
    (Key::TaskId, &["taskid", "id"]),
    (Key::Title, &["title", "name"]),
    (Key::Description, &["description", "desc"]),
    (Key::Role, &["role", "assignedrole", "assignee"]),
    (Key::EstimatedHours, &["estimatedhours", "hours", "estimate"]),
    (Key::Priority, &["priority"]),
    (Key::Keywords, &["keywords", "tags"]),
    (Key::DependsOn, &["dependson", "dependencies"]),
];

/// Longest spelling that can name a key, blanks and dashes included. Anything longer is prose.
pub(crate) const LONGEST_NAME: usize = 32;

impl Key {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let folded = fold(name)?;
        NAMES.iter().find(|(_, names)| names.contains(&folded.as_str())).map(|(key, _)| *key)
    }
}

/// A key's spelling without case, `_`, `-` and space; nothing for what is too long to be one.
pub(crate) fn fold(name: &str) -> Option<String> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let kept = name.chars().filter(|c| !matches!(c, '_' | '-') && !c.is_whitespace());
    Some(kept.map(|c| c.to_ascii_lowercase()).collect())
}

/// Values by key, as they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// By key. Boxed, because a hostile answer has a hundred thousand entries.
    values: Box<[Value; 8]>,
}

impl Entry {
    /// `null` if there is none.
    pub fn get(&self, key: Key) -> &Value {
        &self.values[key as usize]
    }

    /// The first value given for a key stands.
    pub fn set(&mut self, key: Key, value: Value) {
        let slot = &mut self.values[key as usize];
        if is_blank(slot) {
            *slot = value;
        }
    }

    pub fn has_title(&self) -> bool {
        matches!(self.get(Key::Title), Value::String(title) if !title.trim().is_empty())
    }

    /// The task keys of a JSON object. Where a key and its alias are both there, the canonical name is
    /// believed unless it is empty.
    pub fn from_object(object: Map<String, Value>) -> Self {
        let mut entry = Self::default();
        let mut ranked: Vec<(usize, Key, Value)> = object
            .into_iter()
            .filter_map(|(name, value)| {
                let folded = fold(&name)?;
                let (key, names) = NAMES.iter().find(|(_, names)| names.contains(&folded.as_str()))?;
                let rank = names.iter().position(|name| *name == folded)?;
                Some((rank, *key, value))
            })
            .collect();
        ranked.sort_by_key(|(rank, ..)| *rank);
        for (_, key, value) in ranked {
            entry.set(key, value);
        }
        entry
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contract_4_parsing_2_keys_are_known_by_every_spelling() {
        let check = |name: &str, expect: Option<Key>| assert_eq!(Key::from_name(name), expect, "{name}");
        check("TASK_ID", Some(Key::TaskId));
        check("Task ID", Some(Key::TaskId));
        check("id", Some(Key::TaskId));
        check("Name", Some(Key::Title));
        check("desc", Some(Key::Description));
        check("assigned-role", Some(Key::Role));
        check("Assignee", Some(Key::Role));
        check("estimatedHours", Some(Key::EstimatedHours));
        check("ESTIMATE", Some(Key::EstimatedHours));
        check("tags", Some(Key::Keywords));
        check("Depends on", Some(Key::DependsOn));
        check("dependencies", Some(Key::DependsOn));
        check("story_id", None);
        check("", None);
        check(&" ".repeat(40), None);
        check(&format!("title{}", " ".repeat(LONGEST_NAME - 5)), Some(Key::Title));
        check(&format!("title{}", " ".repeat(LONGEST_NAME - 4)), None);
    }

    #[test]
    fn the_canonical_name_wins_over_an_alias_unless_it_is_empty() {
        let check = |object: Value, expect: Value| {
            let Value::Object(object) = object else { panic!("an object") };
            assert_eq!(*Entry::from_object(object).get(Key::Title), expect);
        };
        check(json!({"name": "b", "title": "a"}), json!("a"));
        check(json!({"name": "b", "title": "  "}), json!("b"));
        check(json!({"name": "b", "title": null}), json!("b"));
        check(json!({"name": "b", "title": 5}), json!(5));
    }
}
