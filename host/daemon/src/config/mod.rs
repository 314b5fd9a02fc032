//! What the operator decides: `cofferdam.toml`, then the environment, then flags. Everything is checked here, before
//! anything is bound, and all faults are told at once.

mod env;
mod fault;
mod file;
mod limits;
mod manifest;
mod plugin;
mod reader;
mod secret;
mod subscription;
#[cfg(test)]
mod tests;
mod upstreams;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use env::Environment;
pub use fault::{Fault, Faults};
pub use limits::{Ceilings, LimitsConfig};
pub use manifest::{Manifest, MetricSpec};
pub use secret::{Secret, Url};
use serde_json::Value;
pub use subscription::{Class, EXECUTOR_DURABLE, KeyPlace, KeySource, Subscription};

use crate::grants::Grants;

#[derive(Debug, Clone)]
pub struct Config {
    pub bus: BusConfig,
    pub admin: SocketAddr,
    /// Handed to every plugin as the config key `wire.envelope`.
    pub envelope: String,
    pub log: LogConfig,
    pub sandbox: SandboxSettings,
    /// What manifests may ask for; what nobody asks for is at most this, too.
    pub limits: Ceilings,
    pub dispatch: DispatchConfig,
    pub executor: Option<ExecutorConfig>,
    pub upstreams: BTreeMap<String, Upstream>,
    pub plugins: Vec<PluginConfig>,
    /// Tell of every event on `cofferdam-advisory.<plugin>.<outcome>`.
    pub advisories: bool,
}

#[derive(Debug, Clone)]
pub struct BusConfig {
    pub nats: Vec<Url>,
    pub credentials: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub connect_timeout: Duration,
    /// Create the streams of the fleet contract that nobody created yet.
    pub create_streams: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// As `tracing_subscriber::EnvFilter` reads it: `info`, `cofferdam=debug,warn`. Checked.
    pub level: String,
    pub json: bool,
}

#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// Compiled components; `None`: beside the config, in `.cofferdam/compiled`.
    pub cache: Option<PathBuf>,
    /// Instances alive at once on this host.
    pub instances: u32,
    /// No plugin may ask for more memory than this.
    pub memory: usize,
}

#[derive(Debug, Clone)]
pub struct DispatchConfig {
    /// Events taken and not settled, for each subscription.
    pub max_in_flight: u32,
    /// What a stop waits for running events.
    pub drain: Duration,
    /// An event delivered more often than this without an outcome becomes a dead letter unrun.
    pub max_deliveries: u32,
}

#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    pub backend: Backend,
    pub model: String,
    /// Passed on to the fleet's executor.
    pub vllm_url: String,
    pub concurrency: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A rule-based stand-in for a model.
    Offline,
    /// `fleet.ray_executor.v1` at this upstream.
    Fleet { upstream: String },
}

#[derive(Debug, Clone)]
pub struct Upstream {
    pub address: String,
    pub timeout: Duration,
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub domain: Option<String>,
    pub token: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct PluginConfig {
    pub name: String,
    pub component: PathBuf,
    pub manifest: Manifest,
    pub grants: Grants,
    pub values: BTreeMap<String, Value>,
    pub limits: LimitsConfig,
}

impl Config {
    /// Reads the file and the manifests it names, then lets the environment override it.
    pub fn load(file: &Path, environment: &Environment) -> Result<Self, Faults> {
        file::load(file, environment)
    }
}
