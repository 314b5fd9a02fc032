//! `[plugins.NAME]`: what the operator says of a plugin, together with what its manifest says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use super::{
    Class, Manifest, MetricSpec, PluginConfig, Upstream,
    env::Surroundings,
    file::section,
    limits::{Ceilings, LimitsConfig},
    manifest::{Place, bad_name, is_name, permissions},
    reader::{At, Table},
};
use crate::grants::{Grants, Kind, Permissions};

/// What a plugin's table has to fit to.
pub(super) struct Around<'a> {
    pub surroundings: &'a Surroundings<'a>,
    pub upstreams: &'a BTreeMap<String, Upstream>,
    pub executor: bool,
    /// What the sandbox gives.
    pub memory: usize,
    pub ceilings: &'a Ceilings,
    pub max_deliveries: u32,
}

pub(super) fn plugins(table: Option<&Table<'_>>, around: &Around<'_>) -> Vec<PluginConfig> {
    let (mut all, mut durables) = (Vec::new(), BTreeMap::new());
    for (name, table) in table.map(Table::named_tables).unwrap_or_default() {
        if let Some(plugin) = plugin(&name, &table, around, &mut durables) {
            agree_on_metrics(&table, &plugin, &all);
            all.push(plugin);
        }
        table.finish();
    }
    all
}

/// `None` only along with a fault; every key has been read by then.
fn plugin(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
    durables: &mut BTreeMap<String, String>,
) -> Option<PluginConfig> {
    if !is_name(name) {
        table.fault(bad_name(name));
    }
    let component = table.required("component", "\"target/plugins/NAME.wasm\"");
    let manifest_path = table.string("manifest");
    let check = |kind, entry: &str| around.check(kind, entry);
    let granted =
        section(table, "grants", |t| t.map(|t| permissions(t, &Kind::ALL, check))).unwrap_or_default();
    let limits = section(table, "limits", |t| {
        t.map(|t| {
            let limits = LimitsConfig::read(t);
            limits.check_memory(t, around.memory);
            limits
        })
    })
    .unwrap_or_default();
    let config = table.table("config");
    let (component, manifest_file) = files(table, component, manifest_path, around)?;
    let mut place = Place {
        name,
        ceilings: around.ceilings,
        limits: &limits,
        max_deliveries: around.max_deliveries,
        durables,
    };
    let manifest = match Manifest::read(&manifest_file, &mut place) {
        Ok(manifest) => manifest,
        Err(faults) => {
            around.surroundings.extend(faults.0);
            return None;
        }
    };
    let values = values(name, table, config.as_ref(), &manifest);
    let limits = limits.or(&manifest.limits);
    own_space(table, name, &manifest, &granted);
    let grants = Grants { plugin: name.to_owned(), asked: manifest.asks.clone(), granted };
    Some(PluginConfig { name: name.to_owned(), component, manifest, grants, values, limits })
}

impl Around<'_> {
    /// What is wrong with a grant that is well-formed.
    fn check(&self, kind: Kind, entry: &str) -> Option<String> {
        match kind {
            Kind::Rpc => {
                let upstream = entry.split('/').next().unwrap_or_default();
                (!self.upstreams.contains_key(upstream)).then(|| {
                    format!(
                        "{entry:?} names the upstream {upstream:?}, which is not configured; add [upstreams.{upstream}] with \
                         address = \"http://host:port\""
                    )
                })
            }
            Kind::Executor => (!self.executor).then(|| {
                format!("{entry:?} is granted, but there is no executor; add [executor] with backend = \"offline\"")
            }),
            Kind::Publish | Kind::State => None,
        }
    }
}

/// The component and the manifest, if there is a manifest to read.
fn files(
    table: &Table<'_>,
    component: Option<At<String>>,
    manifest: Option<At<String>>,
    around: &Around<'_>,
) -> Option<(PathBuf, PathBuf)> {
    let base = &around.surroundings.base;
    let path = component.as_ref().map(|c| base.join(&c.value));
    if let (Some(component), Some(path)) = (&component, &path)
        && !path.is_file()
    {
        let message = format!("{:?} is not a file; build the plugin, or correct the path", path.display());
        table.fault_at(component, message);
    }
    let beside = path.as_ref().map(|p| p.with_extension("toml"));
    let file = manifest.as_ref().map(|m| base.join(&m.value)).or(beside)?;
    if file.is_file() {
        // Without a component there is a fault already, and the manifest may have more.
        return Some((path.unwrap_or_default(), file));
    }
    if let Some(at) = manifest.or(component) {
        let message = format!(
            "{:?} is not a file; put the plugin's plugin.toml there, or say where it is with manifest = \"...\"",
            file.display()
        );
        table.fault_at(&at, message);
    }
    None
}

/// Events of a cell take turns with all that share it, and commit with it: nobody gets into a space that is not its own
/// without a grant, whether or not its code touches the state.
fn own_space(table: &Table<'_>, name: &str, manifest: &Manifest, granted: &Permissions) {
    let space = &manifest.space;
    let cells = manifest.subscriptions.iter().any(|s| s.class == Class::Cell);
    if !cells || space == name || granted.covers(Kind::State, space) {
        return;
    }
    let asked = Permissions { state: vec![space.clone()], ..Permissions::default() };
    let grants = Grants { plugin: name.to_owned(), asked, granted: granted.clone() };
    let line = grants.missing().into_iter().find_map(|d| d.grant).unwrap_or_default();
    table.fault(format!(
        "plugin {name:?} keeps the cells of its events in the space {space:?}, which is not its own; to allow it, write in \
         the config under [plugins.{name}.grants]: {line}"
    ));
}

/// The plugin's config: what the operator set, checked against the schema, else the defaults.
fn values(
    name: &str,
    table: &Table<'_>,
    config: Option<&Table<'_>>,
    manifest: &Manifest,
) -> BTreeMap<String, Value> {
    let mut values: BTreeMap<String, Value> =
        manifest.config.iter().filter_map(|(k, c)| c.default.clone().map(|d| (k.clone(), d))).collect();
    let mut set = BTreeSet::new();
    if let Some(config) = config {
        for (key, value) in config.values() {
            match manifest.config.get(&key) {
                None => config.fault_at(
                    &value,
                    format!(
                        "plugins.{name}.config.{key} is not a key of the plugin; it has: {}",
                        manifest.config.keys().cloned().collect::<Vec<_>>().join(", ")
                    ),
                ),
                Some(schema) if !schema.kind.admits(&value.value) => config.fault_at(
                    &value,
                    format!(
                        "plugins.{name}.config.{key} is {}, which is not of the type {}",
                        value.value,
                        format!("{:?}", schema.kind).to_lowercase()
                    ),
                ),
                Some(_) => {
                    values.insert(key.clone(), value.value);
                }
            }
            set.insert(key);
        }
    }
    for (key, schema) in &manifest.config {
        if schema.required && !set.contains(key) {
            table.fault(format!(
                "plugins.{name}.config.{key} is missing and required: {}",
                schema.description
            ));
        }
    }
    values
}

/// Plugins may share a metric, if they mean the same.
fn agree_on_metrics(table: &Table<'_>, plugin: &PluginConfig, others: &[PluginConfig]) {
    for metric in &plugin.manifest.metrics {
        for other in others {
            let differs = |m: &&MetricSpec| {
                m.name == metric.name && (m.labels != metric.labels || m.buckets != metric.buckets)
            };
            if other.manifest.metrics.iter().any(|m| differs(&m)) {
                table.fault(format!(
                    "plugins.{} and plugins.{} declare the metric {:?} with different kinds, labels or buckets; make their \
                     plugin.toml agree",
                    plugin.name, other.name, metric.name
                ));
            }
        }
    }
}
