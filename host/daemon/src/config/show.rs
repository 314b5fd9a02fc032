//! The effective configuration as TOML that can be used again, each value with where it comes from.

use std::fmt;

use toml::{Table, Value};

use super::{
    Url,
    settings::{Origin, Setting, Settings},
};

/// Lists longer than this have a line for each item.
const WIDE: usize = 90;
/// Comments stand in a column, unless a value is longer than this.
const COLUMN: usize = 48;

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tables: Vec<&str> = Vec::new();
        for setting in self.iter() {
            if !tables.contains(&setting.table.as_str()) {
                tables.push(&setting.table);
            }
        }
        for (index, table) in tables.into_iter().enumerate() {
            let lines: Vec<Line> = self.iter().filter(|s| s.table == table).map(Line::of).collect();
            if index > 0 {
                writeln!(f)?;
            }
            if !table.is_empty() {
                writeln!(f, "[{table}]")?;
            }
            let wide = lines.iter().map(|l| l.head.chars().count()).filter(|n| *n <= COLUMN).max();
            for line in lines {
                let Line { head, comment, rest } = line;
                writeln!(f, "{head:width$}  # {comment}", width = wide.unwrap_or_default())?;
                f.write_str(&rest)?;
            }
        }
        Ok(())
    }
}

struct Line {
    /// Up to the comment.
    head: String,
    comment: String,
    /// Below it, if the value takes more lines.
    rest: String,
}

impl Line {
    fn of(setting: &Setting) -> Self {
        let key = key(&setting.key);
        let Some(value) = &setting.value else {
            return Self { head: format!("# {key}"), comment: "not set".to_owned(), rest: String::new() };
        };
        let mut hidden = false;
        let value = without_passwords(value, &mut hidden);
        let mut comment = setting.origin.to_string();
        if hidden {
            comment.push_str("; user and password are hidden");
        }
        if matches!(setting.origin, Origin::Overridden { .. }) {
            return Self { head: format!("# {key} = {}", written(&value)), comment, rest: String::new() };
        }
        let whole = format!("{key} = {}", written(&value));
        match value {
            Value::Array(items) if whole.len() > WIDE => {
                let items: Vec<String> =
                    items.iter().map(|item| format!("    {},\n", written(item))).collect();
                Self { head: format!("{key} = ["), comment, rest: format!("{}]\n", items.concat()) }
            }
            _ => Self { head: whole, comment, rest: String::new() },
        }
    }
}

/// As it is written: in quotes, where it has to be.
pub(super) fn key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

/// On one line.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let items = table.iter().map(|(k, v)| format!("{} = {}", key(k), written(v)));
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A basic string: no other form is on one line whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whatever the key: a URL may be anywhere.
fn without_passwords(value: &Value, hidden: &mut bool) -> Value {
    match value {
        Value::String(text) if text.contains("://") => {
            let shown = Url::new(text.as_str()).to_string();
            *hidden |= shown != *text;
            Value::String(shown)
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| without_passwords(item, hidden)).collect())
        }
        Value::Table(table) => {
            let items = table.iter().map(|(key, item)| (key.clone(), without_passwords(item, hidden)));
            Value::Table(items.collect::<Table>())
        }
        other => other.clone(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Unset => f.write_str("not set"),
            Origin::Default => f.write_str("default"),
            Origin::BuiltIn { .. } => f.write_str("built-in"),
            Origin::File { file, line } => write!(f, "{}:{line}", file.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Overridden { by, origin } => write!(f, "{origin}, but {by} is set"),
            Origin::Bundled => f.write_str("bundled"),
            Origin::Manifest { file, line } => write!(f, "manifest {}:{line}", file.display()),
        }
    }
}
