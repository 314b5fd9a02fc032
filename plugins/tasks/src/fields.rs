//! What one task's values mean: title, description, role, keywords, references. One value in, one value out; numbers
//! are in `amounts`, and nothing here knows of other tasks.

use std::collections::HashSet;

use cofferdam_sdk::fleet::Role;
use serde_json::Value;

use crate::{
    clean::is_invisible,
    entry::{Entry, Key},
    titles,
};

/// What a task is for when neither the model nor the request says so.
pub const DEFAULT_ROLE: &str = "DEVELOPER";
/// Ways to say that a task depends on nothing.
const NOTHING: [&str; 7] = ["none", "n/a", "na", "null", "nil", "no", "-"];

/// The title with its white space collapsed, in full length; nothing if there is none.
pub(crate) fn full_title(value: &Value) -> Option<String> {
    let text: String = value.as_str()?.chars().filter(|c| !is_invisible(*c)).collect();
    let title = titles::collapse(&text);
    (!title.is_empty()).then_some(title)
}

/// The description, led by the full title where that was cut; the title where there is none.
pub(crate) fn description(value: &Value, full_title: &str) -> String {
    titles::described(full_title, &prose(value))
}

fn prose(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(prose).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// The role as CreateTasks names it; nothing for an unknown one and for those that no task may have.
pub(crate) fn role(value: &Value) -> Option<&'static str> {
    let text = match value {
        Value::Array(items) => items.first()?.as_str()?,
        other => other.as_str()?,
    };
    Role::parse(unquote(without_remark(text)))?.task()
}

pub(crate) fn keywords(value: &Value) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut add = |text: &str| {
        let keyword = unquote(text).to_lowercase();
        if !keyword.is_empty() && seen.insert(keyword.clone()) {
            found.push(keyword);
        }
    };
    match value {
        Value::String(text) => unlist(text).split([',', ';', '\n']).for_each(&mut add),
        Value::Array(items) => items.iter().for_each(|item| match item {
            Value::String(text) => add(text),
            Value::Number(number) => add(&number.to_string()),
            _ => {}
        }),
        _ => {}
    }
    found
}

/// What a task says it depends on, phrase by phrase: a phrase may name one task, or several with commas between.
pub(crate) fn references(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => {
            let phrase = unquote(unlist(text));
            let bare = without_remark(phrase).trim_end_matches('.').to_lowercase();
            if bare.is_empty() || NOTHING.contains(&bare.as_str()) {
                Vec::new()
            } else {
                vec![phrase.to_owned()]
            }
        }
        Value::Number(number) => vec![number.to_string()],
        Value::Array(items) => items.iter().filter(|item| !item.is_array()).flat_map(references).collect(),
        Value::Object(object) => {
            let entry = Entry::from_object(object.clone());
            id(&entry).or_else(|| full_title(entry.get(Key::Title))).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The task's own id, if it has one.
pub(crate) fn id(entry: &Entry) -> Option<String> {
    let id = match entry.get(Key::TaskId) {
        Value::String(text) => titles::collapse(unquote(unlist(text))),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    (!id.is_empty()).then_some(id)
}

/// `2 (highest)` without what stands in brackets at the end.
pub(crate) fn without_remark(text: &str) -> &str {
    let text = text.trim();
    match text.find('(') {
        Some(at) if at > 0 && text.ends_with(')') => text[..at].trim_end(),
        _ => text,
    }
}

fn unquote(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
}

fn unlist(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contract_4_per_task_titles_are_collapsed_and_cut() {
        let check = |value: Value, expect: Option<&str>| {
            assert_eq!(full_title(&value).as_deref().map(titles::cut), expect, "{value}");
        };
        check(json!("  Add \t the\nlogin\u{200b} "), Some("Add the login"));
        check(json!("x".repeat(80)), Some(&"x".repeat(80)));
        check(json!("é".repeat(81)), Some(&"é".repeat(80)));
        check(json!(format!("{} b", "a".repeat(79))), Some(&"a".repeat(79)));
        for nothing in [json!(" \u{200b} "), json!(""), json!(5), json!(null), json!(["a"])] {
            check(nothing, None);
        }
    }

    #[test]
    fn contract_4_per_task_descriptions_default_to_the_title() {
        let long = "word ".repeat(20).trim().to_owned();
        let check = |value: Value, title: &str, expect: &str| {
            assert_eq!(description(&value, title), expect, "{value}");
        };
        check(json!(" do it "), "A", "do it");
        check(json!(null), "A", "A");
        check(json!("  "), "A", "A");
        check(json!(["one", "two"]), "A", "one\ntwo");
        check(json!(null), &long, &long);
        check(json!("do it"), &long, &format!("{long}\n\ndo it"));
        check(json!(format!("{long} and more")), &long, &format!("{long} and more"));
    }

    #[test]
    fn contract_4_per_task_roles_by_alias_in_any_case() {
        let check = |value: Value, expect: Option<&str>| assert_eq!(role(&value), expect, "{value}");
        check(json!("dev"), Some("DEVELOPER"));
        check(json!(" Developer "), Some("DEVELOPER"));
        check(json!("Tester"), Some("QA"));
        check(json!("ARCH"), Some("ARCHITECT"));
        check(json!("Product Owner"), Some("PO"));
        check(json!("product_owner (PO)"), Some("PO"));
        check(json!("DevOps"), Some("DEVOPS"));
        check(json!("data"), Some("DATA"));
        check(json!("`DEV`"), Some("DEVELOPER"));
        check(json!("`qa` (tests)"), Some("QA"));
        check(json!(["qa"]), Some("QA"));
        for none in [json!("SYSTEM"), json!("admin"), json!("wizard"), json!(""), json!(null), json!(3)] {
            check(none, None);
        }
    }

    #[test]
    fn contract_4_per_task_keywords_are_lowered_trimmed_and_single() {
        let check = |value: Value, expect: &[&str]| assert_eq!(keywords(&value), expect, "{value}");
        check(json!("JWT, login ,, jwt; Ünder score"), &["jwt", "login", "ünder score"]);
        check(json!("[\"JWT\", 'login']"), &["jwt", "login"]);
        check(json!([" JWT ", "jwt", "a, b", 2, null, ["x"]]), &["jwt", "a, b", "2"]);
        check(json!(null), &[]);
        check(json!(""), &[]);
    }

    #[test]
    fn a_remark_in_brackets_comes_off_the_end() {
        let check = |text: &str, expect: &str| assert_eq!(without_remark(text), expect, "{text:?}");
        check(" 2 (highest) ", "2");
        check("2 (of 3) or 3", "2 (of 3) or 3");
        check("(2)", "(2)");
        check("2", "2");
    }

    #[test]
    fn references_phrase_by_phrase() {
        let check = |value: Value, expect: &[&str]| assert_eq!(references(&value), expect, "{value}");
        check(json!("TASK-001, TASK-002"), &["TASK-001, TASK-002"]);
        check(
            json!(["TASK-001", 2, "none", {"id": "TASK-003"}, {"title": "Add"}, null, [1]]),
            &["TASK-001", "2", "TASK-003", "Add"],
        );
        check(json!("[TASK-001]"), &["TASK-001"]);
        for nothing in [
            json!("none"),
            json!("None."),
            json!("N/A"),
            json!("NONE (first task)"),
            json!("-"),
            json!("[]"),
            json!(""),
            json!(null),
            json!([]),
        ] {
            check(nothing, &[]);
        }
    }
}
