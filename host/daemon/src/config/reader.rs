//! Reading TOML so that every fault is found at once and told with its file, line, value and remedy, and so that every
//! key that is asked for is recorded with its value and where it comes from. Knows nothing of what the keys mean.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{
    Url,
    literal::{self, json, parse_size, show},
    settings::{Origin, Setting},
    show::key as written_key,
    source::{Parsed, Source},
    words::nearest,
};

/// Nothing here waits longer on purpose, and clocks can be added to it without overflow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is wrong with a URL that was shown.
pub(super) const HIDDEN: &str =
    "the password is hidden (***), as `config show` prints it; put the real one back";

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

/// One table of a file. Whoever reads it asks for each key it knows; the rest is unknown. A section that the file does
/// not have is a table without keys, so that its defaults are asked for all the same.
pub(super) struct Table<'a> {
    source: &'a Source,
    path: String,
    table: Option<&'a DeTable<'a>>,
    at: usize,
    known: RefCell<BTreeSet<String>>,
}

/// What a key says, if it says anything. Saying what it is otherwise records that as the default.
#[must_use = "the value counts once it is said what it is by default"]
pub(super) struct Taken<'t, T> {
    table: &'t Table<'t>,
    key: &'t str,
    value: Option<T>,
    write: fn(&T) -> Value,
}

impl<T> Taken<'_, T> {
    /// A key without a value has this one.
    pub(super) fn or(self, default: T) -> T {
        if !self.table.has(self.key) {
            self.table.set(self.key, (self.write)(&default), Origin::Default);
        }
        self.value.unwrap_or(default)
    }

    /// A key without a value has none, or one that is decided elsewhere.
    pub(super) fn optional(self) -> Option<T> {
        self.value
    }
}

/// Reads a text from its top table.
pub(super) fn parse<T>(source: &Source, read: impl FnOnce(&Table<'_>) -> T) -> Parsed<T> {
    source.parse(|table| {
        let top = Table::new(source, String::new(), Some(table), 0);
        let value = read(&top);
        top.finish();
        value
    })
}

impl<'a> Table<'a> {
    fn new(source: &'a Source, path: String, table: Option<&'a DeTable<'a>>, at: usize) -> Self {
        Self { source, path, table, at, known: RefCell::default() }
    }

    /// `[plugins.x]` style name of a key, for messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{}", self.path, written_key(key)) }
    }

    /// Is the table in the file?
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Is the key in the file?
    pub(super) fn has(&self, key: &str) -> bool {
        self.look(key).is_some()
    }

    fn look(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key.to_owned());
        self.table?.get(key)
    }

    /// Every value is taken here, and recorded.
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let value = self.look(key);
        match value {
            Some(value) => {
                if literal::any_string(value.get_ref(), &Url::is_shown) {
                    self.source.fault(value.span().start, format!("{}: {HIDDEN}", self.name(key)));
                }
                self.set(key, literal::toml(value.get_ref()), self.source.origin(value.span().start))
            }
            None => self.unset(key),
        }
        value
    }

    /// Records what a key is, where that is not what the file says.
    pub(super) fn set(&self, key: &str, value: Value, origin: Origin) {
        self.record(key, Some(value), origin);
    }

    /// Records that a key has no value.
    pub(super) fn unset(&self, key: &str) {
        self.record(key, None, Origin::Unset);
    }

    /// Records a value of the file as what it becomes here.
    pub(super) fn refine(&self, key: &str, value: Value) {
        self.source.settings(|all| {
            if let Some(mut setting) = all.get(&self.path, key).cloned() {
                setting.value = Some(value);
                all.set(setting);
            }
        });
    }

    /// Records that a variable stands in the way of what the file says.
    pub(super) fn overridden(&self, key: &str, by: &str) {
        self.source.settings(|all| {
            if let Some(mut setting) = all.get(&self.path, key).filter(|s| s.value.is_some()).cloned() {
                setting.origin = Origin::Overridden { by: by.to_owned(), origin: Box::new(setting.origin) };
                all.set(setting);
            }
        });
    }

    fn record(&self, key: &str, value: Option<Value>, origin: Origin) {
        let setting = Setting { table: self.path.clone(), key: key.to_owned(), value, origin };
        self.source.settings(|all| all.set(setting));
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
        let at = self.table.and_then(|t| t.get(key)).map_or(self.at, |value| value.span().start);
        self.source.fault(at, message.into());
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let (name, found) = (self.name(key), show(value.get_ref()));
        self.source.fault(value.span().start, format!("{name} is {found}, which is not {wanted}"));
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
        if value.is_none() && !self.has(key) {
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

    /// The same with a default, which is parsed as well. `None` only along with a fault.
    pub(super) fn parsed_or<T>(
        &self,
        key: &str,
        default: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.parsed(key, wanted, parse);
        }
        self.set(key, Value::from(default), Origin::Default);
        parse(default)
    }

    fn taken<'t, T>(&'t self, key: &'t str, value: Option<T>, write: fn(&T) -> Value) -> Taken<'t, T> {
        Taken { table: self, key, value, write }
    }

    /// Text, with any default.
    pub(super) fn text<'t>(&'t self, key: &'t str) -> Taken<'t, String> {
        let value = self.string(key).map(|text| text.value);
        self.taken(key, value, |text| Value::from(text.as_str()))
    }

    /// `"5s"`, `"250ms"`, `"2m"`.
    pub(super) fn duration<'t>(&'t self, key: &'t str) -> Taken<'t, Duration> {
        let wanted = "a duration above zero, up to 7 days, such as \"250ms\", \"5s\" or \"2m\"";
        let value = self.parsed(key, wanted, |s| {
            humantime::parse_duration(s).ok().filter(|d| !d.is_zero() && *d <= LONGEST)
        });
        self.taken(key, value, literal::duration)
    }

    /// The same with bounds of its own, above zero.
    pub(super) fn duration_within<'t>(
        &'t self,
        key: &'t str,
        least: Duration,
        most: Duration,
    ) -> Taken<'t, Duration> {
        let [from, to] = [least, most].map(humantime::format_duration);
        let value = self.parsed(key, &format!("a duration from {from} to {to}, such as \"10s\""), |s| {
            humantime::parse_duration(s).ok().filter(|d| (least..=most).contains(d))
        });
        self.taken(key, value, literal::duration)
    }

    /// `"64MiB"`, `"1KiB"`, or a number of bytes.
    pub(super) fn size<'t>(&'t self, key: &'t str) -> Taken<'t, usize> {
        let value = match self.get(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(_)) => self.whole(key, 1, i64::MAX).and_then(|n| n.try_into().ok()),
            _ => self.parsed(key, "a size such as \"64KiB\" or \"16MiB\"", parse_size),
        };
        self.taken(key, value, literal::size)
    }

    pub(super) fn integer<'t>(&'t self, key: &'t str, min: u32, max: u32) -> Taken<'t, u32> {
        let value = self.whole(key, min.into(), max.into()).and_then(|n| n.try_into().ok());
        self.taken(key, value, literal::integer)
    }

    fn whole(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.get(key)?;
        let number = literal::whole(value.get_ref()).filter(|n| (min..=max).contains(n));
        if number.is_none() {
            let most = if max == i64::MAX { "or more".to_owned() } else { format!("to {max}") };
            self.wrong(key, value, &format!("a whole number of {min} {most}"));
        }
        number
    }

    /// A number, whole or not.
    pub(super) fn number<'t>(&'t self, key: &'t str, min: f64, max: f64) -> Taken<'t, f64> {
        let value = self.get(key).and_then(|value| {
            let number = literal::number(value.get_ref()).filter(|n| (min..=max).contains(n));
            if number.is_none() {
                self.wrong(key, value, &format!("a number from {min} to {max}"));
            }
            number
        });
        self.taken(key, value, |number| Value::Float(*number))
    }

    pub(super) fn boolean<'t>(&'t self, key: &'t str) -> Taken<'t, bool> {
        let value = self.get(key).and_then(|value| {
            let flag = value.get_ref().as_bool();
            if flag.is_none() {
                self.wrong(key, value, "true or false");
            }
            flag
        });
        self.taken(key, value, |flag| Value::Boolean(*flag))
    }

    /// A list, empty by default.
    pub(super) fn strings(&self, key: &str) -> Vec<At<String>> {
        let Some(value) = self.get(key) else {
            self.set(key, Value::Array(Vec::new()), Origin::Default);
            return Vec::new();
        };
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
                DeValue::Table(t) => {
                    found.push(Item::Table(Table::new(self.source, self.name(key), Some(t), at)))
                }
                _ => self.wrong(key, item, "a string or a table"),
            }
        }
        found
    }

    pub(super) fn table(&self, key: &str) -> Option<Table<'a>> {
        self.table_as(key, "a table")
    }

    fn table_as(&self, key: &str, wanted: &str) -> Option<Table<'a>> {
        let value = self.look(key)?;
        match value.get_ref() {
            DeValue::Table(t) => {
                let (path, at) = (self.name(key), value.span().start);
                if let Some(line) = self.source.origin(at).line() {
                    self.source.settings(|all| all.has_table(&path, line));
                }
                Some(Table::new(self.source, path, Some(t), at))
            }
            _ => {
                self.wrong(key, value, wanted);
                None
            }
        }
    }

    /// The same, or a table without keys.
    pub(super) fn table_or_empty(&self, key: &str) -> Table<'a> {
        self.table(key).unwrap_or_else(|| Table::new(self.source, self.name(key), None, self.at))
    }

    /// Reads a table that may be missing, and reports its unknown keys.
    pub(super) fn section<T>(&self, key: &str, read: impl FnOnce(&Table<'a>) -> T) -> T {
        let table = self.table_or_empty(key);
        let value = read(&table);
        table.finish();
        value
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
        let names = self.keys();
        let tables = names.into_iter().filter_map(|name| {
            // Every key is a name here, so that a key that is none is hardly a misspelled one.
            let wanted = format!(
                "a table: a key of another table goes above [{}], or below that table's own header",
                self.path
            );
            self.table_as(&name, &wanted).map(|table| (name, table))
        });
        tables.collect()
    }

    /// The keys that are there.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.keys().into_iter().collect()
    }

    /// The keys of a table below this one, if that is one.
    pub(super) fn names_in(&self, key: &str) -> BTreeSet<String> {
        let table = self.look(key).and_then(|value| value.get_ref().as_table());
        table.into_iter().flat_map(|t| t.keys()).map(|k| k.get_ref().to_string()).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.table.into_iter().flat_map(|t| t.keys()).map(|k| k.get_ref().to_string()).collect()
    }

    /// Every key and value, whatever the type.
    pub(super) fn values(&self) -> Vec<(String, At<serde_json::Value>)> {
        self.keys().into_iter().filter_map(|key| self.value(&key).map(|value| (key, value))).collect()
    }

    pub(super) fn value(&self, key: &str) -> Option<At<serde_json::Value>> {
        self.get(key).map(|v| At { value: json(v.get_ref()), at: v.span().start })
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(|t| t.keys()) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_unknown_key_names_its_nearest_neighbour() {
        let source = Source::new(Path::new("x.toml"), "[admin]\nlistne = \"a\"\n".into());
        let faults = parse(&source, |top| top.section("admin", |admin| admin.string("listen"))).faults;
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            "x.toml:2: admin.listne is not a known key; did you mean \"listen\"?"
        );
    }

    #[test]
    fn all_faults_come_at_once_with_their_lines() {
        let source = Source::new(Path::new("x.toml"), "a = 1\nb = \"x\"\nc = \"5 parsecs\"\n".into());
        let parsed = parse(&source, |top| {
            top.string("a");
            top.integer("b", 1, 9).or(1);
            top.duration("c").optional();
        });
        assert_eq!(parsed.faults.iter().map(|f| f.line).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_key_that_got_below_a_header_of_names_is_told_where_it_goes() {
        let text = "[plugins.a]\n[plugins]\nbackend = \"gpu\"\n";
        let source = Source::new(Path::new("x.toml"), text.into());
        let read = |t: &Table<'_>| t.named_tables().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let parsed = parse(&source, |top| top.section("plugins", read));
        let told: Vec<String> = parsed.faults.iter().map(ToString::to_string).collect();
        let expected = "x.toml:3: plugins.backend is \"gpu\", which is not a table: a key of another table goes above [plugins], \
                        or below that table's own header";
        assert_eq!((parsed.value, told), (vec!["a".to_owned()], vec![expected.to_owned()]));
    }

    #[test]
    fn whatever_is_asked_for_is_recorded_with_its_value_and_where_that_comes_from() {
        let source = Source::new(Path::new("x.toml"), "[a]\nset = 7\nlist = [\"x\"]\n".into());
        let parsed = parse(&source, |top| {
            for name in ["a", "b"] {
                top.section(name, |t| {
                    t.integer("set", 1, 9).or(1);
                    t.strings("list");
                    t.size("size").or(64 << 10);
                    t.string("nothing");
                });
            }
        });
        let shown: Vec<String> = parsed
            .settings
            .iter()
            .map(|s| {
                format!(
                    "{}.{} {} {:?}",
                    s.table,
                    s.key,
                    s.value.clone().unwrap_or(Value::from("-")),
                    s.origin
                )
            })
            .collect();
        let file = |line| format!("{:?}", Origin::File { file: "x.toml".into(), line });
        assert_eq!(
            shown,
            [
                format!("a.set 7 {}", file(2)),
                format!("a.list [\"x\"] {}", file(3)),
                "a.size \"64KiB\" Default".to_owned(),
                "a.nothing \"-\" Unset".to_owned(),
                "b.set 1 Default".to_owned(),
                "b.list [] Default".to_owned(),
                "b.size \"64KiB\" Default".to_owned(),
                "b.nothing \"-\" Unset".to_owned(),
            ]
        );
    }
}
