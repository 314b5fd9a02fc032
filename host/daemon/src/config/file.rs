//! From `cofferdam.toml` to [`Config`]: each table's keys, defaults with their reasons, and what must fit together.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{
    Backend, BusConfig, Config, DispatchConfig, Environment, ExecutorConfig, Faults, LogConfig, Manifest,
    MetricSpec, PluginConfig, SandboxSettings, Secret, Upstream,
    env::{UPSTREAMS, as_url},
    manifest::{LimitsConfig, bad_name, is_name, limits_config, permissions},
    reader::{Fault, Item, Source, Table},
};
use crate::grants::{Grants, Kind};

/// Five seconds, as the fleet's services expect of each other.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// What the fleet's own deployment uses.
const MODEL: &str = "Qwen/Qwen2.5-7B-Instruct";
const VLLM_URL: &str = "http://vllm-server-service:8000";
const NATS_URL: &str = "nats://127.0.0.1:4222";
const ADMIN: &str = "127.0.0.1:8080";

pub(super) fn load(file: &Path, environment: &Environment) -> Result<Config, Faults> {
    let source = Source::read(file)?;
    let base = file.parent().map_or_else(PathBuf::new, Path::to_owned);
    let mut elsewhere = Vec::new();
    let (config, mut faults) = source.parse(|top| read(top, &base, environment, &mut elsewhere));
    faults.extend(elsewhere);
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults(faults)),
    }
}

/// `None` only along with a fault. `elsewhere` collects the faults of other files.
fn read(
    top: &Table<'_>,
    base: &Path,
    environment: &Environment,
    elsewhere: &mut Vec<Fault>,
) -> Option<Config> {
    let bus = section(top, "bus", |t| bus(t, base, environment));
    let admin = section(top, "admin", |t| {
        t.and_then(|t| {
            t.parsed("listen", "an address with a port such as \"127.0.0.1:8080\"", |s| s.parse().ok())
        })
    })
    .or_else(|| ADMIN.parse::<SocketAddr>().ok());
    let envelope = section(top, "wire", |t| {
        t.and_then(|t| {
            t.parsed("envelope", "one of mirror, envelope, bare", |s| {
                ["mirror", "envelope", "bare"].contains(&s).then(|| s.to_owned())
            })
        })
    });
    let log = section(top, "log", |t| log(t, environment));
    let sandbox = section(top, "sandbox", |t| sandbox(t, base));
    let dispatch = section(top, "dispatch", dispatch);
    let advisories = section(top, "observe", |t| t.and_then(|t| t.boolean("advisories"))).unwrap_or(false);
    let upstreams = section(top, "upstreams", |t| upstreams(t, base, environment));
    let executor = section(top, "executor", |t| t.and_then(|t| executor(t, &upstreams, environment)));
    let around = Around { base, upstreams: &upstreams, executor: executor.is_some(), memory: sandbox.memory };
    let plugins = section(top, "plugins", |t| {
        let mut all: Vec<PluginConfig> = Vec::new();
        for (name, table) in t.map(Table::named_tables).unwrap_or_default() {
            if let Some(plugin) = plugin(&name, &table, &around, elsewhere) {
                agree_on_metrics(&table, &plugin, &all);
                all.push(plugin);
            }
            table.finish();
        }
        all
    });
    Some(Config {
        bus,
        admin: admin?,
        envelope: envelope.unwrap_or_else(|| "mirror".to_owned()),
        log,
        sandbox,
        dispatch,
        executor,
        upstreams,
        plugins,
        advisories,
    })
}

/// Reads a table that may be missing, and reports its unknown keys.
fn section<T>(top: &Table<'_>, name: &str, read: impl FnOnce(Option<&Table<'_>>) -> T) -> T {
    let table = top.table(name);
    let value = read(table.as_ref());
    if let Some(table) = table {
        table.finish();
    }
    value
}

fn path(table: &Table<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    table.string(key).map(|p| base.join(p.value))
}

/// A path whose file must be there.
fn file(table: &Table<'_>, key: &str, base: &Path) -> Option<PathBuf> {
    let text = table.string(key)?;
    let path = base.join(&text.value);
    if !path.is_file() {
        table.fault_at(
            &text,
            format!("{key} names {:?}, which is not a file; correct the path", path.display()),
        );
    }
    Some(path)
}

/// A client certificate comes with its key.
fn certificate(table: &Table<'_>, base: &Path) -> Option<(PathBuf, PathBuf)> {
    match (file(table, "certificate", base), file(table, "key", base)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            table.fault("certificate and key belong together; add the one that is missing");
            None
        }
    }
}

fn bus(table: Option<&Table<'_>>, base: &Path, environment: &Environment) -> BusConfig {
    let mut nats = Vec::new();
    if let Some(table) = table {
        for item in table.mixed("nats") {
            match item {
                Item::String(url) if is_nats_url(&url.value) => nats.push(url.value),
                Item::String(url) => table.fault_at(
                    &url,
                    format!(
                        "bus.nats has {:?}, which is not a NATS URL; write one such as {NATS_URL:?}",
                        url.value
                    ),
                ),
                Item::Table(t) => t.fault("bus.nats takes URLs"),
            }
        }
    }
    if let Some(url) = environment.get("NATS_URL") {
        nats = url.split(',').map(|u| u.trim().to_owned()).collect();
    }
    if nats.is_empty() {
        nats.push(NATS_URL.to_owned());
    }
    BusConfig {
        nats,
        credentials: table.and_then(|t| file(t, "credentials", base)),
        ca: table.and_then(|t| file(t, "ca", base)),
        certificate: table.and_then(|t| certificate(t, base)),
        connect_timeout: table.and_then(|t| t.duration("connect-timeout")).unwrap_or(Duration::from_secs(10)),
        create_streams: table.and_then(|t| t.boolean("create-streams")).unwrap_or(true),
    }
}

fn is_nats_url(url: &str) -> bool {
    ["nats://", "tls://", "ws://", "wss://"]
        .iter()
        .any(|s| url.strip_prefix(s).is_some_and(|rest| !rest.is_empty()))
}

fn log(table: Option<&Table<'_>>, environment: &Environment) -> LogConfig {
    let level = environment
        .get("LOG_LEVEL")
        .map(str::to_lowercase)
        .or_else(|| table.and_then(|t| t.string("level")).map(|l| l.value))
        .unwrap_or_else(|| "info".to_owned());
    let json = table.and_then(|t| {
        t.parsed("format", "text or json", |s| match s {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        })
    });
    LogConfig { level: level.replace("warning", "warn"), json: json.unwrap_or(false) }
}

fn sandbox(table: Option<&Table<'_>>, base: &Path) -> SandboxSettings {
    SandboxSettings {
        cache: Some(
            table
                .and_then(|t| path(t, "cache", base))
                .unwrap_or_else(|| base.join(".cofferdam").join("compiled")),
        ),
        // Each costs address space, and memory only while it lives.
        instances: table.and_then(|t| t.integer("instances", 1, 10_000)).unwrap_or(256) as u32,
        memory: table.and_then(|t| t.size("memory")).unwrap_or(256 << 20),
    }
}

fn dispatch(table: Option<&Table<'_>>) -> DispatchConfig {
    DispatchConfig {
        max_in_flight: table.and_then(|t| t.integer("max-in-flight", 1, 65_536)).unwrap_or(1024) as u32,
        drain: table.and_then(|t| t.duration("drain")).unwrap_or(Duration::from_secs(30)),
        // Far above what restarts and hand-backs make of an innocent event.
        max_deliveries: table.and_then(|t| t.integer("max-deliveries", 1, 10_000)).unwrap_or(25) as u32,
    }
}

fn upstreams(
    table: Option<&Table<'_>>,
    base: &Path,
    environment: &Environment,
) -> BTreeMap<String, Upstream> {
    let mut all = BTreeMap::new();
    for (name, table) in table.map(Table::named_tables).unwrap_or_default() {
        if !is_name(&name) {
            table.fault(bad_name(&name));
        }
        let address = table.required("address", "\"http://127.0.0.1:50051\"");
        if let Some(address) = &address
            && !as_url(&address.value).parse::<http::Uri>().is_ok_and(|u| u.port().is_some())
        {
            table.fault_at(
                address,
                format!(
                    "upstreams.{name}.address is {:?}, which is not a URL with a port; write \"http://host:port\"",
                    address.value
                ),
            );
        }
        let upstream = Upstream {
            address: as_url(&address.map(|a| a.value).unwrap_or_default()),
            timeout: table.duration("timeout").unwrap_or(RPC_TIMEOUT),
            ca: file(&table, "ca", base),
            certificate: certificate(&table, base),
            domain: table.string("domain").map(|d| d.value),
            token: token(&table, base, environment),
        };
        table.finish();
        all.insert(name, upstream);
    }
    for (variable, name) in UPSTREAMS {
        if let Some(address) = environment.get(variable) {
            let address = as_url(address);
            all.entry(name.to_owned()).and_modify(|u| u.address.clone_from(&address)).or_insert(Upstream {
                address,
                timeout: RPC_TIMEOUT,
                ca: None,
                certificate: None,
                domain: None,
                token: None,
            });
        }
    }
    all
}

/// `token-file` or `token-env`: a secret never stands in the config itself.
fn token(table: &Table<'_>, base: &Path, environment: &Environment) -> Option<Secret> {
    if let Some(path) = file(table, "token-file", base) {
        return match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret::new(text.trim().to_owned())),
            Err(e) => {
                table.fault(format!("token-file {:?} can't be read: {e}", path.display()));
                None
            }
        };
    }
    let name = table.string("token-env")?;
    let value = environment.get(&name.value);
    if value.is_none() {
        table.fault_at(
            &name,
            format!("token-env names {:?}, which is not set; set it, or use token-file", name.value),
        );
    }
    value.map(|v| Secret::new(v.to_owned()))
}

fn executor(
    table: &Table<'_>,
    upstreams: &BTreeMap<String, Upstream>,
    environment: &Environment,
) -> Option<ExecutorConfig> {
    let name = table.required("backend", "\"offline\"")?;
    let upstream = table.string("upstream");
    let backend = match name.value.as_str() {
        "offline" => Backend::Offline,
        "fleet" => {
            let upstream = upstream.unwrap_or_else(|| name.with("ray"));
            if !upstreams.contains_key(&upstream.value) {
                table.fault_at(
                    &upstream,
                    format!(
                        "the executor's upstream {:?} is not configured; add [upstreams.{}] with its address",
                        upstream.value, upstream.value
                    ),
                );
            }
            Backend::Fleet { upstream: upstream.value }
        }
        other => {
            table.fault_at(&name, format!("executor.backend is {other:?}; known here: offline, fleet"));
            return None;
        }
    };
    let text = |key: &str, variable: &str, default: &str| {
        let own = table.string(key).map(|v| v.value);
        environment.get(variable).map(str::to_owned).or(own).unwrap_or_else(|| default.to_owned())
    };
    Some(ExecutorConfig {
        backend,
        model: text("model", "VLLM_MODEL", MODEL),
        vllm_url: text("vllm-url", "VLLM_URL", VLLM_URL),
        concurrency: table.integer("concurrency", 1, 10_000).unwrap_or(16) as u32,
    })
}

/// What a plugin's table has to fit to.
struct Around<'a> {
    base: &'a Path,
    upstreams: &'a BTreeMap<String, Upstream>,
    executor: bool,
    memory: usize,
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

fn plugin(
    name: &str,
    table: &Table<'_>,
    around: &Around<'_>,
    elsewhere: &mut Vec<Fault>,
) -> Option<PluginConfig> {
    let base = around.base;
    if !is_name(name) {
        table.fault(bad_name(name));
    }
    let component = table.required("component", "\"target/plugins/NAME.wasm\"");
    let manifest_path = table.string("manifest");
    let check = |kind, entry: &str| around.check(kind, entry);
    let granted =
        section(table, "grants", |t| t.map(|t| permissions(t, &Kind::ALL, check))).unwrap_or_default();
    let limits = section(table, "limits", |t| t.map(limits_config)).unwrap_or_default();
    let component = component?;
    let component_path = base.join(&component.value);
    if !component_path.is_file() {
        table.fault_at(
            &component,
            format!("{:?} is not a file; build the plugin, or correct the path", component_path.display()),
        );
    }
    let manifest_file = match &manifest_path {
        Some(path) => base.join(&path.value),
        None => component_path.with_extension("toml"),
    };
    if !manifest_file.is_file() {
        let message = format!(
            "{:?} is not a file; put the plugin's plugin.toml there, or say where it is with manifest = \"...\"",
            manifest_file.display()
        );
        table.fault_at(manifest_path.as_ref().unwrap_or(&component), message);
        return None;
    }
    let manifest = match Manifest::read(&manifest_file) {
        Ok(manifest) => manifest,
        Err(faults) => {
            elsewhere.extend(faults.0);
            return None;
        }
    };
    let values = values(name, table, &manifest);
    let grants = Grants { plugin: name.to_owned(), asked: manifest.asks.clone(), granted };
    let manifest = rename(manifest, name);
    let limits = merge(&limits, &manifest.limits);
    if let Some(memory) = limits.memory.filter(|m| *m > around.memory) {
        table.fault(format!(
            "plugins.{name} wants {memory} bytes of memory and the sandbox gives {}; raise [sandbox] memory, or lower \
             [plugins.{name}.limits] memory",
            around.memory
        ));
    }
    Some(PluginConfig { name: name.to_owned(), component: component_path, manifest, grants, values, limits })
}

/// The plugin's config: what the operator set, checked against the schema, else the defaults.
fn values(name: &str, table: &Table<'_>, manifest: &Manifest) -> BTreeMap<String, Value> {
    let mut values: BTreeMap<String, Value> =
        manifest.config.iter().filter_map(|(k, c)| c.default.clone().map(|d| (k.clone(), d))).collect();
    let mut set = BTreeSet::new();
    if let Some(config) = table.table("config") {
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

/// The name in the config is the plugin's name on this cluster: its durables and space follow it.
fn rename(mut manifest: Manifest, name: &str) -> Manifest {
    if manifest.name != name {
        let (old, new) = (format!("cofferdam-{}-", manifest.name), format!("cofferdam-{name}-"));
        for subscription in &mut manifest.subscriptions {
            if let Some(rest) = subscription.durable.strip_prefix(&old) {
                subscription.durable = format!("{new}{rest}");
            }
        }
        manifest.name = name.to_owned();
    }
    manifest
}

fn merge(operator: &LimitsConfig, author: &LimitsConfig) -> LimitsConfig {
    LimitsConfig {
        cpu: operator.cpu.or(author.cpu),
        wall: operator.wall.or(author.wall),
        memory: operator.memory.or(author.memory),
        host_calls: operator.host_calls.or(author.host_calls),
        concurrency: operator.concurrency.or(author.concurrency),
    }
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
