//! `plugin.toml`: what a plugin is, subscribes to, asks for, and can be configured with. Written by its author, and read for
//! the place that the operator gives it.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    bounds::Bounds,
    fault::Faults,
    isolation::IsolationConfig,
    limits::LimitsConfig,
    place::Place,
    reader::{self, Table},
    service::{Service, service},
    source::{Parsed, Source},
    subscription::{Subscription, subscription},
    words::{bad_name, is_name},
};
use crate::grants::{Kind, Permissions};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// As its author calls it; the operator may call it otherwise.
    pub name: String,
    pub version: String,
    pub description: String,
    pub subscriptions: Vec<Subscription>,
    /// The gRPC that it can serve.
    pub services: Vec<Service>,
    /// The space of the plugin's cells; its own is named like the plugin on this cluster.
    pub space: String,
    pub asks: Permissions,
    pub limits: LimitsConfig,
    pub isolation: IsolationConfig,
    pub config: BTreeMap<String, ConfigKey>,
    pub metrics: Vec<MetricSpec>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConfigKey {
    pub kind: ValueKind,
    pub default: Option<Value>,
    /// Without a default the guest sees nothing, unless the operator has to set it.
    pub required: bool,
    pub bounds: Bounds,
    pub description: String,
}

impl ConfigKey {
    /// The value and what is wrong with it, as it follows "is".
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        if !self.kind.admits(value) {
            return Some(format!("{value}, which is not of the type {}", self.kind.name()));
        }
        Some(format!("{value}; {}", self.bounds.fault(value)?))
    }
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

    /// As a manifest writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Table => "table",
        }
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
    pub kind: MetricKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MetricKind {
    Counter,
    /// With the bounds of its buckets.
    Histogram(Vec<f64>),
    Gauge,
}

impl MetricKind {
    /// As a manifest writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Histogram(_) => "histogram",
            Self::Gauge => "gauge",
        }
    }
}

impl Manifest {
    /// What there is of it, if there is a file.
    pub(super) fn read(file: &Path, place: &mut Place<'_>) -> Result<Parsed<Self>, Faults> {
        let folder = file.parent().unwrap_or(Path::new(""));
        Ok(reader::parse(&Source::read(file)?, |top| read(top, folder, place)))
    }
}

fn read(top: &Table<'_>, folder: &Path, place: &mut Place<'_>) -> Manifest {
    let mut manifest = Manifest::default();
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
            manifest.description = table.text("description").or(String::new());
            if let Some(wit) = table.string("wit")
                && wit.value != "0.1"
            {
                table.fault_at(&wit, format!("plugin.wit is {:?}; this host knows \"0.1\"", wit.value));
            }
            manifest.isolation = IsolationConfig::of_author(&table);
            table.finish();
        }
    }
    manifest.space = place.name.to_owned();
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
        manifest.limits = LimitsConfig::of_author(&limits, place.name, place.limits, place.ceilings);
        limits.finish();
    }
    let wall = manifest.limits.wall_in(place.limits, place.ceilings);
    for table in top.tables("subscriptions") {
        manifest.subscriptions.extend(subscription(&table, place, wall));
        table.finish();
    }
    for table in top.tables("services") {
        if let Some(service) = service(&table, folder, &manifest.services) {
            manifest.asks.serve.push(service.name.clone());
            manifest.services.push(service);
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
            let default = table.value("default");
            let schema = ConfigKey {
                kind: parsed.unwrap_or(ValueKind::String),
                default: default.as_ref().map(|default| default.value.clone()),
                required: table.boolean("required").or(false),
                bounds: Bounds::read(&table, parsed),
                description: table.text("description").or(String::new()),
            };
            if let Some(default) = &default
                && parsed.is_some()
                && let Some(fault) = schema.fault(&default.value)
            {
                table.fault_at(default, format!("config.{key}.default is {fault}"));
            }
            manifest.config.insert(key, schema);
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
            if let Some(fault) = kind.fault(&entry.value) {
                table.fault_at(&entry, fault);
                continue;
            }
            if let Some(fault) = check(*kind, &entry.value) {
                table.fault_at(&entry, fault);
            }
            all.list_mut(*kind).push(entry.value);
        }
    }
    all
}

fn metric(name: String, table: &Table<'_>) -> MetricSpec {
    let default = || vec![1.0, 5.0, 25.0, 100.0, 500.0, 1_000.0, 5_000.0, 25_000.0, 120_000.0];
    let mut kind = table.parsed("kind", "counter, histogram or gauge", |s| match s {
        "counter" => Some(MetricKind::Counter),
        "histogram" => Some(MetricKind::Histogram(default())),
        "gauge" => Some(MetricKind::Gauge),
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
    let list = table.value("buckets");
    if let (Some(MetricKind::Histogram(bounds)), Some(list)) = (&mut kind, &list) {
        let numbers: Option<Vec<f64>> =
            list.value.as_array().and_then(|a| a.iter().map(Value::as_f64).collect());
        match numbers.filter(|n| !n.is_empty() && n.windows(2).all(|w| w[0] < w[1])) {
            Some(numbers) => *bounds = numbers,
            None => {
                table.fault_at(list, format!("metrics.{name}.buckets is not a rising list of numbers"));
            }
        }
    }
    MetricSpec {
        help: table.text("help").or(name.clone()),
        labels: table.strings("labels").into_iter().map(|l| l.value).collect(),
        name,
        kind: kind.unwrap_or(MetricKind::Counter),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::limits::Ceilings, *};

    /// A manifest of this text, for a plugin that the operator calls `p`.
    pub(in crate::config) fn parse(text: &str) -> Result<Manifest, Faults> {
        let mut place = Place {
            name: "p",
            ceilings: &Ceilings::of_sandbox(256 << 20),
            limits: &LimitsConfig::default(),
            durables: &mut BTreeMap::new(),
        };
        // Below the text, whose lines are counted from 1.
        let text = format!("{text}\n[plugin]\nname = \"theirs\"\nversion = \"0.1.0\"\n");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fleet.fds"), fleet_proto::FILE_DESCRIPTOR_SET).unwrap();
        std::fs::write(folder.path().join("bad.fds"), b"\xff").unwrap();
        let source = Source::new(Path::new("plugin.toml"), text);
        let parsed = reader::parse(&source, |top| read(top, folder.path(), &mut place));
        if parsed.faults.is_empty() { Ok(parsed.value) } else { Err(Faults(parsed.faults)) }
    }

    /// The text has one fault, there, that says this.
    #[track_caller]
    pub(in crate::config) fn check(text: &str, line: usize, says: &str) {
        let faults = parse(text).unwrap_err();
        assert_eq!(faults.0.iter().map(|f| f.line).collect::<Vec<_>>(), [Some(line)], "{faults}");
        assert!(faults.0[0].message.contains(says), "{faults}");
    }

    #[test]
    fn faults_name_line_value_and_remedy() {
        let text = "[[subscriptions]]\nsubject = \"a..b\"\ncommit = \"cell\"\n[asks]\nrpc = [\"x\"]\n[state]\nspace = \"p q\"\n";
        let faults = parse(text).unwrap_err();
        let lines: Vec<Option<usize>> = faults.0.iter().map(|f| f.line).collect();
        assert_eq!(lines, [2, 3, 5, 7].map(Some), "{faults}");
        let empty =
            Source::new(Path::new("plugin.toml"), "[plugin]\nname = \"p q\"\nwit = \"7\"\n".to_owned());
        let mut durables = BTreeMap::new();
        let mut place = Place {
            name: "p",
            ceilings: &Ceilings::of_sandbox(1),
            limits: &LimitsConfig::default(),
            durables: &mut durables,
        };
        let faults = reader::parse(&empty, |top| read(top, Path::new(""), &mut place)).faults;
        assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2, 3].map(Some));
    }

    #[test]
    fn a_metric_is_a_counter_a_histogram_or_a_gauge() {
        let kind = |lines: &str| parse(&format!("[metrics.m]\n{lines}\n")).unwrap().metrics[0].kind.clone();
        assert_eq!(kind("kind = \"counter\""), MetricKind::Counter);
        assert_eq!(kind("kind = \"gauge\"\nlabels = [\"queue\"]"), MetricKind::Gauge);
        assert_eq!(kind("kind = \"histogram\"\nbuckets = [1, 2.5]"), MetricKind::Histogram(vec![1.0, 2.5]));
        check("[metrics.m]\nkind = \"meter\"\n", 2, "is \"meter\", which is not counter, histogram or gauge");
        check("[metrics.m]\n", 1, "kind is missing");
        check("[metrics.m]\nkind = \"histogram\"\nbuckets = [2, 1]\n", 3, "not a rising list");
    }

    #[test]
    fn a_space_that_nobody_names_is_the_operators_name_for_the_plugin() {
        assert_eq!(parse("").unwrap().space, "p");
        assert!(parse("").unwrap().asks.state.is_empty());
        let manifest = parse("[state]\n").unwrap();
        assert_eq!((manifest.space.as_str(), &manifest.asks.state[..]), ("p", &["p".to_owned()][..]));
        let manifest = parse("[state]\nspace = \"shared\"\n").unwrap();
        assert_eq!(
            (manifest.space.as_str(), &manifest.asks.state[..]),
            ("shared", &["shared".to_owned()][..])
        );
    }
}
