//! `[plugins.NAME]`: what the operator says of a plugin, together with what its manifest says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use super::{
    Manifest, MetricSpec, PluginConfig, Upstream, bundled,
    env::Surroundings,
    isolation::IsolationConfig,
    limits::{Ceilings, LimitsConfig, PluginLimits, check_memory},
    literal,
    manifest::permissions,
    paths::optional_path,
    place::Place,
    reader::{At, Table},
    settings::{Origin, Settings},
    source::Parsed,
    words::{bad_name, is_name},
};
use crate::{
    executor::job::CLIENTS,
    grants::{Grants, Kind, Permissions},
};

/// Names of the executor's own, in queues and budgets, in metrics and in messages: a plugin of such a name would be taken for it.
const RESERVED: [(&str, &str); 3] = [
    (CLIENTS, "all that call [executor.grpc], whose queues, shares and budgets it would share"),
    ("executor", "the executor's own service in metrics"),
    ("cofferdam-executor", "whoever answers jobs in events"),
];

/// What a plugin's table has to fit to.
pub(super) struct Around<'a> {
    pub surroundings: &'a Surroundings<'a>,
    pub upstreams: &'a BTreeMap<String, Upstream>,
    pub executor: bool,
    /// What the sandbox gives.
    pub memory: usize,
    pub ceilings: &'a Ceilings,
}

pub(super) fn plugins(table: &Table<'_>, around: &Around<'_>) -> Vec<PluginConfig> {
    let (mut all, mut durables) = (Vec::new(), BTreeMap::new());
    let mut bundled = Bundled { places: bundled::places(around.surroundings), missing: Vec::new() };
    let tables = table.named_tables();
    let mut whole = true;
    for (name, table) in &tables {
        let plugin = plugin(name, table, around, &mut bundled, &mut durables, &mut whole);
        agree_on_metrics(table, &plugin, &all);
        serve_apart(table, &plugin, &all);
        all.push(plugin);
    }
    // What a manifest with faults would serve is not known.
    if whole {
        for ((_, table), plugin) in tables.iter().zip(&all) {
            served_here(table, plugin, &all, around);
        }
    }
    // All of them lack one thing, which is told once.
    if let Some((_, table)) = tables.iter().find(|(name, _)| bundled.missing.first() == Some(name)) {
        table.fault(bundled::missing(&bundled.missing, &bundled.places));
    }
    tables.into_iter().for_each(|(_, table)| table.finish());
    all
}

struct Bundled {
    places: Vec<PathBuf>,
    /// Plugins that are in none of the places.
    missing: Vec<String>,
}

/// As much of a plugin as can be made out, where something is wrong.
fn plugin(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
    bundled: &mut Bundled,
    durables: &mut BTreeMap<String, String>,
    all_whole: &mut bool,
) -> PluginConfig {
    if !is_name(name) {
        table.fault(bad_name(name));
    }
    if let Some((_, whose)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        table.fault(format!("plugins.{name} has the name of {whose}; give the plugin another name"));
    }
    let component = component(name, table, around, bundled);
    let manifest_file = manifest_file(table, component.as_ref(), around);
    let isolation = IsolationConfig::read(table);
    let check = |kind, entry: &str| around.check(kind, entry);
    let granted = table.section("grants", |t| permissions(t, &Kind::ALL, check));
    let limits_table = table.table_or_empty("limits");
    let limits = LimitsConfig::read(&limits_table);
    check_memory(&limits_table, limits.memory.unwrap_or_default(), around.memory);
    let mut place = Place { name, ceilings: around.ceilings, limits: &limits, durables };
    let read = manifest_file.as_ref().and_then(|file| match Manifest::read(file, &mut place) {
        Ok(parsed) => Some(parsed),
        Err(faults) => {
            around.surroundings.extend(faults.0);
            None
        }
    });
    let whole = read.as_ref().is_some_and(|read| read.faults.is_empty());
    *all_whole &= whole;
    let Parsed { value: manifest, faults, settings, .. } = read.unwrap_or_default();
    around.surroundings.extend(faults);
    let config = table.table_or_empty("config");
    // What a manifest with faults does not say is no fault of the config.
    let values = if whole { values(name, table, &config, &manifest, &settings) } else { BTreeMap::new() };
    let limits = PluginLimits::of(&limits_table, &limits, &manifest.limits, &settings, around.ceilings);
    limits_table.finish();
    let isolation = isolation.choose(table, &manifest.isolation, &settings, whole);
    let grants = Grants { plugin: name.to_owned(), asked: manifest.asks.clone(), granted };
    let plugin = PluginConfig {
        name: name.to_owned(),
        component: component.map(|c| c.path).unwrap_or_default(),
        manifest_file: manifest_file.unwrap_or_default(),
        manifest,
        grants,
        values,
        limits,
        isolation,
    };
    if whole {
        own_space(table, &plugin);
    }
    plugin
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
            Kind::Publish | Kind::State | Kind::Serve => None,
        }
    }
}

struct Component {
    path: PathBuf,
    /// Where the config names it, if it does.
    at: Option<At<String>>,
}

/// The component that the config names, else the bundled one of the plugin's name.
fn component(name: &str, table: &Table<'_>, around: &Around<'_>, bundled: &mut Bundled) -> Option<Component> {
    let base = &around.surroundings.base;
    if table.has("component") {
        let (path, at) = optional_path(table, "component", base)?;
        if !path.is_file() {
            let message =
                format!("{:?} is not a file; build the plugin, or correct the path", path.display());
            table.fault_at(&at, message);
        }
        return Some(Component { path, at: Some(at) });
    }
    // A name that is none may lead anywhere.
    let files = bundled.places.iter().map(|place| place.join(format!("{name}.wasm")));
    let Some(path) = files.into_iter().find(|file| is_name(name) && file.is_file()) else {
        bundled.missing.push(name.to_owned());
        return None;
    };
    table.set("component", literal::path(&path), Origin::Bundled);
    Some(Component { path, at: None })
}

/// The manifest that the config names, else the one beside the component.
fn manifest_file(table: &Table<'_>, component: Option<&Component>, around: &Around<'_>) -> Option<PathBuf> {
    let named = optional_path(table, "manifest", &around.surroundings.base);
    let (file, at) = match (named, component) {
        (Some((file, at)), _) => (file, Some(at)),
        (None, Some(component)) => {
            let file = component.path.with_extension("toml");
            table.set("manifest", literal::path(&file), Origin::Default);
            (file, component.at.clone())
        }
        (None, None) => return None,
    };
    if file.is_file() {
        return Some(file);
    }
    let message = format!(
        "{:?} is not a file; put the plugin's plugin.toml there, or say where it is with manifest = \"...\"",
        file.display()
    );
    match at {
        Some(at) => table.fault_at(&at, message),
        None => table.fault(message),
    }
    None
}

/// Events of a cell take turns with all that share it, and commit with it: nobody gets into a space that is not its own
/// without a grant, whether or not its code touches the state.
fn own_space(table: &Table<'_>, plugin: &PluginConfig) {
    if plugin.trespasses() {
        table.fault(trespass(plugin));
    }
}

/// What is told of a plugin that [trespasses](PluginConfig::trespasses).
pub(crate) fn trespass(plugin: &PluginConfig) -> String {
    let PluginConfig { name, manifest: Manifest { space, .. }, grants, .. } = plugin;
    let asked = Permissions { state: vec![space.clone()], ..Permissions::default() };
    let grants = Grants { plugin: name.clone(), asked, granted: grants.granted.clone() };
    let line = grants.missing().into_iter().find_map(|d| d.grant).unwrap_or_default();
    format!(
        "plugin {name:?} keeps the cells of its events in the space {space:?}, which is not its own; to allow it, write in \
         the config under [plugins.{name}.grants]: {line}"
    )
}

/// The plugin's config: what the operator set, checked against the schema, else the defaults.
fn values(
    name: &str,
    table: &Table<'_>,
    config: &Table<'_>,
    manifest: &Manifest,
    settings: &Settings,
) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let mut set = BTreeSet::new();
    for (key, value) in config.values() {
        match manifest.config.get(&key) {
            None => config.fault_at(
                &value,
                format!(
                    "plugins.{name}.config.{key} is not a key of the plugin; it has: {}",
                    manifest.config.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            ),
            Some(schema) => match schema.fault(&value.value) {
                Some(fault) => config.fault_at(&value, format!("plugins.{name}.config.{key} is {fault}")),
                None => {
                    values.insert(key.clone(), value.value);
                }
            },
        }
        set.insert(key);
    }
    for (key, schema) in manifest.config.iter().filter(|(key, _)| !set.contains(*key)) {
        match (&schema.default, schema.required) {
            (_, true) => table.fault(format!(
                "plugins.{name}.config.{key} is missing and required: {}",
                schema.description
            )),
            (Some(default), false) => {
                values.insert(key.clone(), default.clone());
                let written = settings.get(&format!("config.{key}"), "default");
                if let Some((value, origin)) =
                    written.and_then(|s| Some((s.value.clone()?, s.origin.clone())))
                {
                    config.set(key, value, origin.of_manifest());
                }
            }
            (None, false) => config.unset(key),
        }
    }
    values
}

/// Whoever is called in memory is here, or nowhere.
fn served_here(table: &Table<'_>, plugin: &PluginConfig, all: &[PluginConfig], around: &Around<'_>) {
    for entry in plugin.grants.granted.list(Kind::Rpc) {
        let Some((upstream, method)) = entry.split_once('/') else { continue };
        if !around.upstreams.get(upstream).is_some_and(Upstream::is_own) {
            continue;
        }
        let names = |path: &str| match method.strip_suffix('*') {
            Some(service) => path.starts_with(service),
            None => path == method,
        };
        if all.iter().flat_map(PluginConfig::served).any(|served| names(&served.path)) {
            continue;
        }
        table.table_or_empty("grants").fault_of(
            "rpc",
            format!(
                "{entry:?} is called at this daemon itself, as upstreams.{upstream}.address says, and no plugin here is granted to \
                 serve it; add serve = [{method:?}] to the grants of one that can, or give the upstream another address",
                method = method.trim_end_matches("/*"),
            ),
        );
    }
}

/// A call goes to one plugin.
fn serve_apart(table: &Table<'_>, plugin: &PluginConfig, others: &[PluginConfig]) {
    for other in others {
        let theirs: BTreeSet<&str> = other.served().map(|method| method.path.as_str()).collect();
        let both: Vec<&str> =
            plugin.served().map(|method| method.path.as_str()).filter(|path| theirs.contains(path)).collect();
        if !both.is_empty() {
            table.fault(format!(
                "plugins.{} and plugins.{} are both granted to serve {}, and a call goes to one; take that from the grants of \
                 one of them",
                other.name,
                plugin.name,
                both.join(", ")
            ));
        }
    }
}

/// Plugins may share a metric, if they mean the same.
fn agree_on_metrics(table: &Table<'_>, plugin: &PluginConfig, others: &[PluginConfig]) {
    for metric in &plugin.manifest.metrics {
        for other in others {
            let differs = |m: &&MetricSpec| {
                m.name == metric.name && (m.labels != metric.labels || m.kind != metric.kind)
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
