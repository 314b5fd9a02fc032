//! The plugins of this host: component, manifest, grants and limits, checked against each other before anything runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::anyhow;
use bytes::Bytes;
use cofferdam_sandbox::{
    Limits, LoadError, Plugin as Component, Sandbox, SandboxConfig, SandboxError, Shape, Source,
};
use serde_json::Value;

use crate::{
    config::{Config, Method, MetricSpec, PluginConfig, PluginLimits, Subscription},
    dispatch::Places,
    grants::{Denial, Grants, Kind},
    observe::metrics::{Meters, Metrics},
};

pub struct Plugin {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub space: String,
    pub subscriptions: Vec<Subscription>,
    /// What it serves: listed in its manifest and granted.
    pub methods: Vec<Arc<Method>>,
    pub grants: Grants,
    pub values: BTreeMap<String, Value>,
    pub metrics: Vec<MetricSpec>,
    pub limits: Limits,
    pub component: Component,
    pub places: Places,
    meters: OnceLock<Meters>,
}

impl Plugin {
    /// Its own numbers among all.
    pub fn meters(&self, metrics: &Metrics) -> &Meters {
        self.meters.get_or_init(|| metrics.of_plugin(&self.name))
    }
}

/// Why a plugin can't run here.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("plugin {name:?}: {path:?} can't be read: {error}", path = path.display())]
    Unreadable { name: String, path: PathBuf, error: std::io::Error },
    #[error("plugin {name:?} ({path:?}): {error}", path = path.display())]
    Load { name: String, path: PathBuf, error: LoadError },
    #[error(
        "plugin {name:?} imports {interface:?} and is granted nothing of that kind; if it does not use it, build it for a \
         world without that import, else write in the config under [plugins.{name}.grants]: {line}"
    )]
    NotGranted { name: String, interface: String, line: String },
    #[error(
        "plugin {name:?} ({path:?}): its manifest lists {services} in [[services]], and the component exports no service; build \
         it with `export!(handle, serve)`, or take [[services]] out of the manifest",
        path = path.display()
    )]
    ServesNothing { name: String, path: PathBuf, services: String },
}

pub fn sandbox(config: &Config) -> anyhow::Result<Sandbox> {
    sandbox_with(config, config.sandbox.cache.clone()).map_err(|error| match error {
        SandboxError::Cache { path, source } => anyhow!(
            "the directory {path:?} of compiled components can't be used: {source}; make it writable, or set [sandbox] \
             cache to another",
            path = path.display()
        ),
        error => error.into(),
    })
}

/// The same for a look at the plugins: it leaves nothing behind.
pub fn sandbox_without_cache(config: &Config) -> Result<Sandbox, SandboxError> {
    sandbox_with(config, None)
}

fn sandbox_with(config: &Config, cache: Option<PathBuf>) -> Result<Sandbox, SandboxError> {
    let instances = config.sandbox.instances;
    Sandbox::new(SandboxConfig {
        cache_dir: cache,
        max_instances: instances + if config.calls_itself() { Places::beside(instances) } else { 0 },
        max_memory: config.sandbox.memory,
        ..SandboxConfig::default()
    })
}

/// A configured plugin whose component has passed every check that takes no compiling.
pub struct Inspected<'c> {
    plugin: &'c PluginConfig,
    bytes: Bytes,
}

/// Reads and inspects the component of every configured plugin; all that fail are told at once.
pub async fn inspect_all(config: &Config) -> anyhow::Result<Vec<Inspected<'_>>> {
    let (mut inspected, mut errors) = (Vec::new(), Vec::new());
    for plugin in &config.plugins {
        match inspect(plugin).await {
            Ok(bytes) => inspected.push(Inspected { plugin, bytes }),
            Err(of_plugin) => errors.extend(of_plugin),
        }
    }
    if errors.is_empty() { Ok(inspected) } else { Err(all(&errors)) }
}

/// Compiles every plugin, or takes it from the cache; all that fail are told at once.
pub async fn load_all(
    inspected: Vec<Inspected<'_>>,
    config: &Config,
    sandbox: &Sandbox,
) -> anyhow::Result<Vec<Arc<Plugin>>> {
    let (mut plugins, mut errors) = (Vec::new(), Vec::new());
    for one in inspected {
        match load(one, config, sandbox).await {
            Ok(plugin) => plugins.push(Arc::new(plugin)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(plugins) } else { Err(all(&errors)) }
}

fn all(errors: &[PluginError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
    anyhow!("{} of the plugins can't run here:\n{}", errors.len(), lines.join("\n"))
}

async fn inspect(plugin: &PluginConfig) -> Result<Bytes, Vec<PluginError>> {
    let (name, path) = (plugin.name.clone(), plugin.component.clone());
    let bytes = match read(&path).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(vec![PluginError::Unreadable { name, path, error }]),
    };
    let shape = Sandbox::inspect(&bytes).map_err(|error| vec![PluginError::Load { name, path, error }])?;
    let ungranted = ungranted(plugin, &shape).into_iter().map(|kind| not_granted(plugin, kind));
    let errors: Vec<PluginError> = ungranted.chain(serves_nothing(plugin, &shape)).collect();
    if errors.is_empty() { Ok(bytes) } else { Err(errors) }
}

/// A manifest that promises what the component does not have.
pub fn serves_nothing(plugin: &PluginConfig, shape: &Shape) -> Option<PluginError> {
    let services: Vec<&str> = plugin.manifest.services.iter().map(|service| service.name.as_str()).collect();
    (!services.is_empty() && !shape.serves).then(|| PluginError::ServesNothing {
        name: plugin.name.clone(),
        path: plugin.component.clone(),
        services: services.join(", "),
    })
}

async fn load(one: Inspected<'_>, config: &Config, sandbox: &Sandbox) -> Result<Plugin, PluginError> {
    let Inspected { plugin, bytes } = one;
    let name = plugin.name.clone();
    let path = plugin.component.clone();
    let component =
        sandbox.load(bytes).await.map_err(|error| PluginError::Load { name: name.clone(), path, error })?;
    let shape = component.shape();
    for denial in plugin.grants.missing() {
        warn_missing(&denial);
    }
    let (source, took) = match component.source() {
        Source::Compiled { took } => ("compiled", took),
        Source::Cached { took } => ("from the cache", took),
    };
    tracing::info!(
        plugin = name,
        version = plugin.manifest.version,
        digest = %shape.digest,
        ms = took.as_millis() as u64,
        "plugin ready ({source})"
    );
    let mut values = plugin.values.clone();
    values.entry("wire.envelope".to_owned()).or_insert_with(|| Value::String(config.envelope.clone()));
    Ok(Plugin {
        name,
        version: plugin.manifest.version.clone(),
        digest: shape.digest.to_string(),
        space: plugin.manifest.space.clone(),
        subscriptions: plugin.manifest.subscriptions.clone(),
        methods: plugin.served().cloned().collect(),
        grants: plugin.grants.clone(),
        values,
        metrics: plugin.manifest.metrics.clone(),
        limits: limits(&plugin.limits),
        places: Places::new(plugin.limits.concurrency, config.calls_itself()),
        meters: OnceLock::new(),
        component: component.isolated(plugin.isolation),
    })
}

/// What has no setting is the sandbox's own.
fn limits(own: &PluginLimits) -> Limits {
    Limits {
        cpu: own.cpu,
        wall: own.wall,
        memory: own.memory,
        host_calls: own.host_calls,
        ..Limits::default()
    }
}

/// The kinds that the component imports and nothing is granted of. Not the executor: whoever imports it may only ask how a job is,
/// which takes no grant, and `submit` is denied by the call.
pub fn ungranted(plugin: &PluginConfig, shape: &Shape) -> Vec<Kind> {
    let imported = Kind::ALL.into_iter().filter(|kind| shape.imports.contains(kind.name()));
    let useless = imported.filter(|kind| *kind != Kind::Executor);
    useless.filter(|kind| plugin.grants.granted.list(*kind).is_empty()).collect()
}

fn not_granted(plugin: &PluginConfig, kind: Kind) -> PluginError {
    let asked = plugin.grants.missing().into_iter().find(|d| d.kind == kind).and_then(|d| d.grant);
    PluginError::NotGranted {
        name: plugin.name.clone(),
        interface: kind.name().to_owned(),
        line: asked
            .unwrap_or_else(|| format!("{} = [\"...\"], and ask for it in its plugin.toml", kind.name())),
    }
}

async fn read(path: &Path) -> std::io::Result<Bytes> {
    tokio::fs::read(path).await.map(Bytes::from)
}

/// It may cope; the operator should know before the first denial.
fn warn_missing(denial: &Denial) {
    tracing::warn!(plugin = denial.plugin, "asked for and not granted: {denial}");
}
