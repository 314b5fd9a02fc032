//! `plugin.toml`: what a plugin is, subscribes to, asks for, and can be configured with. Written by its author.

use std::{collections::BTreeMap, path::Path, time::Duration};

use cofferdam_bus::subject;
use serde_json::Value;

use super::reader::{At, Fault, Faults, Item, Source, Table};
use crate::grants::{Kind, Permissions};

#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub description: String,
    pub subscriptions: Vec<Subscription>,
    /// The space of the plugin's cells.
    pub space: String,
    pub asks: Permissions,
    pub limits: LimitsConfig,
    pub config: BTreeMap<String, ConfigKey>,
    pub metrics: Vec<MetricSpec>,
}

/// Limits where the author or the operator sets them; the rest are the host's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    pub cpu: Option<Duration>,
    pub wall: Option<Duration>,
    pub memory: Option<usize>,
    pub host_calls: Option<u32>,
    pub concurrency: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub subject: String,
    pub durable: String,
    /// Tried in order; the first that is found and not empty is the key.
    pub order_key: Vec<KeySource>,
    /// With `{key}` in it.
    pub cell: String,
    pub class: Class,
    pub ack_wait: Duration,
    pub max_attempts: u32,
    pub backoff: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    pub place: KeyPlace,
    /// Taken off once, if the value begins with it; a value that doesn't is not a key.
    pub strip_prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// A JSON pointer (RFC 6901) into the payload.
    Pointer(String),
    Header(String),
}

/// Where events of a subscription commit (see `cofferdam_bus::Point`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Cell,
    Record,
    Publish,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConfigKey {
    pub kind: ValueKind,
    pub default: Option<Value>,
    /// Without a default the guest sees nothing, unless the operator has to set it.
    pub required: bool,
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    String,
    Integer,
    Number,
    Boolean,
    List,
    Table,
}

impl ValueKind {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "list" => Self::List,
            "table" => Self::Table,
            _ => return None,
        })
    }

    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Table => value.is_object(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MetricSpec {
    pub name: String,
    pub help: String,
    pub labels: Vec<String>,
    /// Bucket bounds make it a histogram; without it is a counter.
    pub buckets: Option<Vec<f64>>,
}

impl Manifest {
    pub fn read(file: &Path) -> Result<Self, Faults> {
        let (manifest, faults) = Source::read(file)?.parse(read);
        checked(manifest, faults)
    }

    pub fn parse(file: &Path, text: &str) -> Result<Self, Faults> {
        let (manifest, faults) = Source::new(file, text.to_owned()).parse(read);
        checked(manifest, faults)
    }
}

fn checked(manifest: Manifest, faults: Vec<Fault>) -> Result<Manifest, Faults> {
    if faults.is_empty() { Ok(manifest) } else { Err(Faults(faults)) }
}

fn read(top: &Table<'_>) -> Manifest {
    let mut manifest = Manifest {
        name: String::new(),
        version: String::new(),
        description: String::new(),
        subscriptions: Vec::new(),
        space: String::new(),
        asks: Permissions::default(),
        limits: LimitsConfig::default(),
        config: BTreeMap::new(),
        metrics: Vec::new(),
    };
    match top.table("plugin") {
        None => top.fault("[plugin] is missing; add it with name, version, description and wit"),
        Some(table) => {
            if let Some(name) = table.required("name", "\"my-plugin\"") {
                if !is_name(&name.value) {
                    table.fault_at(&name, bad_name(&name.value));
                }
                manifest.name = name.value;
            }
            manifest.version = table.required("version", "\"0.1.0\"").map(|v| v.value).unwrap_or_default();
            manifest.description = table.string("description").map(|v| v.value).unwrap_or_default();
            if let Some(wit) = table.string("wit")
                && wit.value != "0.1"
            {
                table.fault_at(&wit, format!("plugin.wit is {:?}; this host knows \"0.1\"", wit.value));
            }
            table.finish();
        }
    }
    manifest.space = manifest.name.clone();
    let has_state = top.table("state").map(|table| {
        if let Some(space) = table.string("space") {
            if !is_name(&space.value) {
                table.fault_at(&space, bad_name(&space.value));
            }
            manifest.space = space.value;
        }
        table.finish();
    });
    if let Some(asks) = top.table("asks") {
        manifest.asks = permissions(&asks, &[Kind::Publish, Kind::Rpc, Kind::Executor], |_, _| None);
        asks.finish();
    }
    if has_state.is_some() {
        manifest.asks.state.push(manifest.space.clone());
    }
    if let Some(limits) = top.table("limits") {
        manifest.limits = limits_config(&limits);
        limits.finish();
    }
    let mut durables = std::collections::BTreeSet::new();
    for table in top.tables("subscriptions") {
        if let Some(subscription) = subscription(&table, &manifest.name) {
            if !durables.insert(subscription.durable.clone()) {
                table.fault(format!(
                    "two subscriptions would share the durable {:?}; remove one, or give it a durable of its own",
                    subscription.durable
                ));
            }
            manifest.subscriptions.push(subscription);
        }
        table.finish();
    }
    if let Some(config) = top.table("config") {
        for (key, table) in config.named_tables() {
            let parsed = table.parsed(
                "type",
                "one of string, integer, number, boolean, list, table",
                ValueKind::parse,
            );
            if parsed.is_none() && !table.has("type") {
                table.fault(format!("config.{key}.type is missing; add type = \"string\""));
            }
            let kind = parsed.unwrap_or(ValueKind::String);
            let default = table.value("default");
            if let Some(default) = &default
                && parsed.is_some()
                && !kind.admits(&default.value)
            {
                table.fault_at(default, format!("config.{key}.default is not of the type that it declares"));
            }
            let description = table.string("description").map(|d| d.value).unwrap_or_default();
            let required = table.boolean("required").unwrap_or(false);
            let default = default.map(|d| d.value);
            manifest.config.insert(key, ConfigKey { kind, default, required, description });
            table.finish();
        }
        config.finish();
    }
    if let Some(metrics) = top.table("metrics") {
        for (name, table) in metrics.named_tables() {
            manifest.metrics.push(metric(name, &table));
            table.finish();
        }
        metrics.finish();
    }
    manifest
}

/// The lists of a table, one for each of `kinds`; `check` finds what else may be wrong with an entry.
pub(super) fn permissions(
    table: &Table<'_>,
    kinds: &[Kind],
    check: impl Fn(Kind, &str) -> Option<String>,
) -> Permissions {
    let mut all = Permissions::default();
    for kind in kinds {
        for entry in table.strings(kind.name()) {
            if let Some(fault) = kind.fault(&entry.value).or_else(|| check(*kind, &entry.value)) {
                table.fault_at(&entry, fault);
            }
            all.list_mut(*kind).push(entry.value);
        }
    }
    all
}

pub(super) fn limits_config(table: &Table<'_>) -> LimitsConfig {
    LimitsConfig {
        cpu: table.duration("cpu"),
        wall: table.duration("wall"),
        memory: table.size("memory"),
        host_calls: table.integer("host-calls", 1, u32::MAX.into()).map(|n| n as u32),
        concurrency: table.integer("concurrency", 1, 100_000).map(|n| n as u32),
    }
}

fn subscription(table: &Table<'_>, plugin: &str) -> Option<Subscription> {
    let filter = table.required("subject", "\"orders.created\"");
    let mut order_key = Vec::new();
    for item in table.mixed("order-key") {
        match item {
            Item::String(pointer) => key_source(table, pointer, None, &mut order_key),
            Item::Table(inner) => {
                let strip = inner.string("strip-prefix").map(|s| s.value);
                match (inner.string("pointer"), inner.string("header")) {
                    (Some(pointer), None) => key_source(table, pointer, strip, &mut order_key),
                    (None, Some(header)) => {
                        order_key
                            .push(KeySource { place: KeyPlace::Header(header.value), strip_prefix: strip });
                    }
                    _ => inner.fault("a part of order-key has either pointer or header"),
                }
                inner.finish();
            }
        }
    }
    let keyed = !order_key.is_empty();
    let class = table.parsed("commit", "one of cell, record, publish", |s| match s {
        "cell" => Some(Class::Cell),
        "record" => Some(Class::Record),
        "publish" => Some(Class::Publish),
        _ => None,
    });
    let cell = table.string("cell");
    if let Some(cell) = &cell
        && !cell.value.contains("{key}")
    {
        table.fault_at(
            cell,
            format!("cell is {:?}, so all keys would share it; put {{key}} in it", cell.value),
        );
    }
    if class == Some(Class::Cell) && !keyed {
        table.fault("commit = \"cell\" needs an order-key; add one, or write commit = \"record\"");
    }
    let class = class.unwrap_or(if keyed { Class::Cell } else { Class::Record });
    let ack_wait = table.duration("ack-wait").unwrap_or(Duration::from_secs(30));
    let max_attempts = table.integer("max-attempts", 1, 1000).unwrap_or(3) as u32;
    let backoff = table.duration("backoff").unwrap_or(Duration::from_secs(5));
    let durable = table.string("durable");
    let filter = filter?;
    if subject::check_filter(&filter.value).is_err() {
        table.fault_at(&filter, format!("{:?} is not a subject", filter.value));
    }
    if let Some(durable) = &durable
        && !is_name(&durable.value)
    {
        table.fault_at(durable, bad_name(&durable.value));
    }
    Some(Subscription {
        durable: durable.map_or_else(|| durable_name(plugin, &filter.value), |d| d.value),
        subject: filter.value,
        order_key,
        cell: cell.map_or_else(|| "{key}".to_owned(), |c| c.value),
        class,
        ack_wait,
        max_attempts,
        backoff,
    })
}

fn key_source(
    table: &Table<'_>,
    pointer: At<String>,
    strip_prefix: Option<String>,
    into: &mut Vec<KeySource>,
) {
    if !pointer.value.starts_with('/') {
        table.fault_at(
            &pointer,
            format!("order-key has {:?}, which is not a JSON pointer; begin it with /", pointer.value),
        );
    }
    into.push(KeySource { place: KeyPlace::Pointer(pointer.value), strip_prefix });
}

fn metric(name: String, table: &Table<'_>) -> MetricSpec {
    let kind = table.parsed("kind", "counter or histogram", |s| match s {
        "counter" => Some(false),
        "histogram" => Some(true),
        _ => None,
    });
    if kind.is_none() && !table.has("kind") {
        table.fault(format!("metrics.{name}.kind is missing; add kind = \"counter\""));
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(fine)
        || name.starts_with(|c: char| c.is_ascii_digit())
        || name.starts_with("cofferdam_")
    {
        table.fault(format!(
            "{name:?} is not a metric name for a plugin; use letters, digits and _, and not the host's cofferdam_ prefix"
        ));
    }
    let bounds = table.value("buckets");
    let mut buckets = None;
    if kind == Some(true) {
        let default = || vec![1.0, 5.0, 25.0, 100.0, 500.0, 1_000.0, 5_000.0, 25_000.0, 120_000.0];
        buckets = Some(match &bounds {
            None => default(),
            Some(list) => {
                let numbers: Option<Vec<f64>> =
                    list.value.as_array().and_then(|a| a.iter().map(Value::as_f64).collect());
                numbers.filter(|n| !n.is_empty() && n.windows(2).all(|w| w[0] < w[1])).unwrap_or_else(|| {
                    table.fault_at(list, format!("metrics.{name}.buckets is not a rising list of numbers"));
                    default()
                })
            }
        });
    }
    MetricSpec {
        help: table.string("help").map(|h| h.value).unwrap_or_else(|| name.clone()),
        labels: table.strings("labels").into_iter().map(|l| l.value).collect(),
        name,
        buckets,
    }
}

/// `cofferdam-<plugin>-<subject with dashes>`, wildcards in words.
fn durable_name(plugin: &str, filter: &str) -> String {
    let words: Vec<&str> = filter
        .split('.')
        .map(|token| match token {
            "*" => "any",
            ">" => "all",
            other => other,
        })
        .collect();
    format!("cofferdam-{plugin}-{}", words.join("-"))
}

/// Names become tokens of subjects, durables and file names.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

pub(super) fn bad_name(name: &str) -> String {
    format!("{name:?} is not a name; use up to 64 letters, digits, - and _")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, Faults> {
        Manifest::parse(Path::new("plugin.toml"), text)
    }

    const HEAD: &str = "[plugin]\nname = \"p\"\nversion = \"0.1.0\"\n";

    #[test]
    fn a_subscription_has_the_contracts_defaults() {
        let manifest = parse(&format!("{HEAD}[[subscriptions]]\nsubject = \"a.b.>\"\n")).unwrap();
        let subscription = &manifest.subscriptions[0];
        assert_eq!(subscription.durable, "cofferdam-p-a-b-all");
        assert_eq!((subscription.max_attempts, subscription.backoff), (3, Duration::from_secs(5)));
        assert_eq!(subscription.class, Class::Record);
    }

    #[test]
    fn an_order_key_makes_it_a_cell_and_may_strip_a_prefix() {
        let manifest = parse(&format!(
            "{HEAD}[[subscriptions]]\nsubject = \"a\"\norder-key = [\"/id\", {{ pointer = \"/t\", strip-prefix = \"x-\" }}]\n"
        ))
        .unwrap();
        let subscription = &manifest.subscriptions[0];
        assert_eq!(subscription.class, Class::Cell);
        assert_eq!(subscription.order_key[1].strip_prefix.as_deref(), Some("x-"));
    }

    #[test]
    fn faults_name_line_value_and_remedy() {
        let faults = parse(
            "[plugin]\nname = \"p q\"\nwit = \"7\"\n[[subscriptions]]\nsubject = \"a..b\"\ncommit = \"cell\"\n[asks]\nrpc = [\"x\"]\n",
        )
        .unwrap_err();
        let lines: Vec<usize> = faults.0.iter().map(|f| f.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 8], "{faults}");
    }
}
