//! The plugins of this host: component, manifest, grants and limits, checked against each other before anything runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cofferdam_sandbox::{
    Limits, LoadError, Plugin as Component, Sandbox, SandboxConfig, SandboxError, Shape, Source,
};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    config::{Config, MetricSpec, PluginConfig, PluginLimits, Subscription},
    grants::{Denial, Grants, Kind},
};

pub struct Plugin {
    pub name: String,
    pub version: String,
    pub digest: String,
    pub space: String,
    pub subscriptions: Vec<Subscription>,
    pub grants: Grants,
    pub values: BTreeMap<String, Value>,
    pub metrics: Vec<MetricSpec>,
    pub limits: Limits,
    pub component: Component,
    pub permits: Arc<Semaphore>,
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
}

pub fn sandbox(config: &Config) -> Result<Sandbox, SandboxError> {
    sandbox_with(config, config.sandbox.cache.clone())
}

/// The same for a look at the plugins: it leaves nothing behind.
pub fn sandbox_without_cache(config: &Config) -> Result<Sandbox, SandboxError> {
    sandbox_with(config, None)
}

fn sandbox_with(config: &Config, cache: Option<PathBuf>) -> Result<Sandbox, SandboxError> {
    Sandbox::new(SandboxConfig {
        cache_dir: cache,
        max_instances: config.sandbox.instances,
        max_memory: config.sandbox.memory,
        ..SandboxConfig::default()
    })
}

/// Loads every configured plugin; all that fail are told at once.
pub async fn load_all(config: &Config, sandbox: &Sandbox) -> Result<Vec<Arc<Plugin>>, Vec<PluginError>> {
    let (mut plugins, mut errors) = (Vec::new(), Vec::new());
    for plugin in &config.plugins {
        match load(plugin, config, sandbox).await {
            Ok(plugin) => plugins.push(Arc::new(plugin)),
            Err(of_plugin) => errors.extend(of_plugin),
        }
    }
    if errors.is_empty() { Ok(plugins) } else { Err(errors) }
}

async fn load(plugin: &PluginConfig, config: &Config, sandbox: &Sandbox) -> Result<Plugin, Vec<PluginError>> {
    let name = plugin.name.clone();
    let path = plugin.component.clone();
    let bytes = read(&path)
        .await
        .map_err(|error| vec![PluginError::Unreadable { name: name.clone(), path: path.clone(), error }])?;
    let unloadable = |error| vec![PluginError::Load { name: name.clone(), path: path.clone(), error }];
    // Before compiling, which may take a while.
    let ungranted = ungranted(plugin, &Sandbox::inspect(&bytes).map_err(unloadable)?);
    if !ungranted.is_empty() {
        return Err(ungranted.into_iter().map(|kind| not_granted(plugin, kind)).collect());
    }
    let component = sandbox.load(bytes).await.map_err(unloadable)?;
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
        grants: plugin.grants.clone(),
        values,
        metrics: plugin.manifest.metrics.clone(),
        limits: limits(&plugin.limits),
        permits: Arc::new(Semaphore::new(plugin.limits.concurrency as usize)),
        component,
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

/// The kinds that the component imports and nothing is granted of.
pub fn ungranted(plugin: &PluginConfig, shape: &Shape) -> Vec<Kind> {
    let imported = Kind::ALL.into_iter().filter(|kind| shape.imports.contains(kind.name()));
    imported.filter(|kind| plugin.grants.granted.list(*kind).is_empty()).collect()
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
