//! Reading TOML so that every fault is found at once and told with its file, line, value and remedy. Knows nothing
//! of what the keys mean.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::fault::{Fault, Faults};

/// Nothing here waits longer on purpose, and clocks can be added to it without overflow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A TOML file's text, and the faults found in it so far.
pub(super) struct Source {
    file: PathBuf,
    text: String,
    faults: RefCell<Vec<Fault>>,
}

impl Source {
    pub(super) fn read(file: &Path) -> Result<Self, Faults> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            Faults(vec![Fault {
                file: file.to_owned(),
                line: Some(1),
                message: format!("can't be read: {e}; name another file, or create it"),
            }])
        })?;
        Ok(Self::new(file, text))
    }

    pub(super) fn new(file: &Path, text: String) -> Self {
        Self { file: file.to_owned(), text, faults: RefCell::default() }
    }

    /// Hands the top table to `read` and returns what it made, unless anything was wrong.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&Table<'_>) -> T) -> (T, Vec<Fault>) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            let at = error.span().map_or(0, |s| s.start);
            self.fault(at, error.message().to_owned());
        }
        let top = Table::new(self, String::new(), table.get_ref(), 0);
        let value = read(&top);
        top.finish();
        let mut faults = self.faults.take();
        faults.sort_by_key(|f| f.line);
        (value, faults)
    }

    fn fault(&self, at: usize, message: String) {
        let line = 1 + self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        self.faults.borrow_mut().push(Fault { file: self.file.clone(), line: Some(line), message });
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: T,
    at: usize,
}

impl<T> At<T> {
    /// Another value that this place stands for.
    pub(super) fn with(&self, value: &str) -> At<String> {
        At { value: value.to_owned(), at: self.at }
    }
}

/// One table of a file. Whoever reads it asks for each key it knows; the rest is unknown.
pub(super) struct Table<'a> {
    source: &'a Source,
    path: String,
    table: &'a DeTable<'a>,
    at: usize,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Table<'a> {
    fn new(source: &'a Source, path: String, table: &'a DeTable<'a>, at: usize) -> Self {
        Self { source, path, table, at, known: RefCell::default() }
    }

    /// `[plugins.x]` style name of a key, for messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    /// A fault of this table as a whole.
    pub(super) fn fault(&self, message: impl Into<String>) {
        self.source.fault(self.at, message.into());
    }

    /// A fault of one value.
    pub(super) fn fault_at<T>(&self, value: &At<T>, message: impl Into<String>) {
        self.source.fault(value.at, message.into());
    }

    /// A fault of the value of a key, or of the table if the key is not set.
    pub(super) fn fault_of(&self, key: &str, message: impl Into<String>) {
        let at = self.table.get(key).map_or(self.at, |value| value.span().start);
        self.source.fault(at, message.into());
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let (name, found) = (self.name(key), show(value.get_ref()));
        self.source.fault(value.span().start, format!("{name} is {found}, which is not {wanted}"));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn string(&self, key: &str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(s) => Some(At { value: s.to_string(), at: value.span().start }),
            _ => {
                self.wrong(key, value, "a string: put it in quotes");
                None
            }
        }
    }

    pub(super) fn required(&self, key: &str, example: &str) -> Option<At<String>> {
        let value = self.string(key);
        if value.is_none() && !self.table.contains_key(key) {
            self.fault(format!("{} is missing; add {key} = {example}", self.name(key)));
        }
        value
    }

    /// A string that `parse` understands; `wanted` says what that is.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.string(key)?;
        let parsed = parse(&text.value);
        if parsed.is_none() {
            self.fault_at(&text, format!("{} is {:?}, which is not {wanted}", self.name(key), text.value));
        }
        parsed
    }

    /// `"5s"`, `"250ms"`, `"2m"`.
    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.parsed(key, "a duration above zero, up to 7 days, such as \"250ms\", \"5s\" or \"2m\"", |s| {
            humantime::parse_duration(s).ok().filter(|d| !d.is_zero() && *d <= LONGEST)
        })
    }

    /// The same with bounds of its own, above zero.
    pub(super) fn duration_within(&self, key: &str, least: Duration, most: Duration) -> Option<Duration> {
        let [from, to] = [least, most].map(humantime::format_duration);
        self.parsed(key, &format!("a duration from {from} to {to}"), |s| {
            humantime::parse_duration(s).ok().filter(|d| (least..=most).contains(d))
        })
    }

    /// `"64MiB"`, `"1KiB"`, or a number of bytes.
    pub(super) fn size(&self, key: &str) -> Option<usize> {
        if let Some(DeValue::Integer(_)) = self.get(key).map(Spanned::get_ref) {
            return self.integer(key, 1, i64::MAX).map(|n| n as usize);
        }
        self.parsed(key, "a size such as \"64KiB\" or \"16MiB\"", parse_size)
    }

    pub(super) fn integer(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(n) => i64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|n| (min..=max).contains(n));
        if number.is_none() {
            let most = if max == i64::MAX { "or more".to_owned() } else { format!("to {max}") };
            self.wrong(key, value, &format!("a whole number of {min} {most}"));
        }
        number
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(key, value, "true or false");
        }
        flag
    }

    pub(super) fn strings(&self, key: &str) -> Vec<At<String>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong(key, value, "a list of strings such as [\"a\", \"b\"]");
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(s) => strings.push(At { value: s.to_string(), at: item.span().start }),
                _ => self.wrong(key, item, "a string: put it in quotes"),
            }
        }
        strings
    }

    /// The items of a list that may be strings or inline tables.
    pub(super) fn mixed(&self, key: &str) -> Vec<Item<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let single = std::slice::from_ref(value);
        let items = value.get_ref().as_array().map_or(single, |a| a.as_ref());
        let mut found = Vec::new();
        for item in items {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::String(s) => found.push(Item::String(At { value: s.to_string(), at })),
                DeValue::Table(t) => found.push(Item::Table(Table::new(self.source, self.name(key), t, at))),
                _ => self.wrong(key, item, "a string or a table"),
            }
        }
        found
    }

    pub(super) fn table(&self, key: &str) -> Option<Table<'a>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(t) => Some(Table::new(self.source, self.name(key), t, value.span().start)),
            _ => {
                self.wrong(key, value, "a table");
                None
            }
        }
    }

    /// `[[key]]`
    pub(super) fn tables(&self, key: &str) -> Vec<Table<'a>> {
        let mut tables = Vec::new();
        for item in self.mixed(key) {
            match item {
                Item::Table(table) => tables.push(table),
                Item::String(s) => {
                    self.fault_at(&s, format!("{} is not a table; write [[{key}]]", self.name(key)))
                }
            }
        }
        tables
    }

    /// The tables below this one, by name: every key is a name.
    pub(super) fn named_tables(&self) -> Vec<(String, Table<'a>)> {
        let names: Vec<String> = self.table.keys().map(|k| k.get_ref().to_string()).collect();
        names.into_iter().filter_map(|n| self.table(&n).map(|t| (n, t))).collect()
    }

    /// Every key and value, whatever the type.
    pub(super) fn values(&self) -> Vec<(String, At<serde_json::Value>)> {
        let entries = self.table.iter();
        entries
            .map(|(k, v)| {
                let key = k.get_ref().to_string();
                self.known.borrow_mut().insert(key.clone());
                (key, At { value: json(v.get_ref()), at: v.span().start })
            })
            .collect()
    }

    pub(super) fn value(&self, key: &str) -> Option<At<serde_json::Value>> {
        self.get(key).map(|v| At { value: json(v.get_ref()), at: v.span().start })
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(name) {
                let remedy = match nearest(name, &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => {
                        format!(
                            "known here: {}",
                            known.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
                        )
                    }
                };
                self.source
                    .fault(key.span().start, format!("{} is not a known key; {remedy}", self.name(name)));
            }
        }
    }
}

pub(super) enum Item<'a> {
    String(At<String>),
    Table(Table<'a>),
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(n) => {
            i64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(n) => n.as_str().replace('_', "").parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Array(items) => items.iter().map(|i| json(i.get_ref())).collect(),
        DeValue::Table(t) => t.iter().map(|(k, v)| (k.get_ref().to_string(), json(v.get_ref()))).collect(),
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim() {
        "B" | "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok().filter(|n| *n > 0)?.checked_mul(unit)
}

/// As it would be written: `64MiB`.
pub(super) fn show_size(bytes: usize) -> String {
    let fits = |bits: &u32| bytes != 0 && bytes.trailing_zeros() >= *bits;
    match [(30, "GiB"), (20, "MiB"), (10, "KiB")].into_iter().find(|(bits, _)| fits(bits)) {
        Some((bits, unit)) => format!("{}{unit}", bytes >> bits),
        None => format!("{bytes} bytes"),
    }
}

/// The known word that differs least, if it differs little.
fn nearest<'w>(word: &str, known: &'w BTreeSet<String>) -> Option<&'w str> {
    let best = known.iter().map(|k| (distance(word, k), k)).min()?;
    (best.0 <= 1 + word.len() / 4).then_some(best.1.as_str())
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(ca != *cb)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        assert_eq!(parse_size("12"), Some(12));
        for (bytes, shown) in [(65536, "64KiB"), (3 << 30, "3GiB"), (1025, "1025 bytes"), (0, "0 bytes")] {
            assert_eq!(show_size(bytes), shown);
        }
        for bad in ["", "MiB", "-1KiB", "1 MB", "0"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_key_names_its_nearest_neighbour() {
        let source = Source::new(Path::new("x.toml"), "[admin]\nlistne = \"a\"\n".into());
        let (_, faults) = source.parse(|top| {
            let admin = top.table("admin").unwrap();
            admin.string("listen");
            admin.finish();
        });
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            "x.toml:2: admin.listne is not a known key; did you mean \"listen\"?"
        );
    }

    #[test]
    fn all_faults_come_at_once_with_their_lines() {
        let source = Source::new(Path::new("x.toml"), "a = 1\nb = \"x\"\nc = \"5 parsecs\"\n".into());
        let (_, faults) = source.parse(|top| {
            top.string("a");
            top.integer("b", 1, 9);
            top.duration("c");
        });
        assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    }
}
