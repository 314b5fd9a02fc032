//! What the operator decides: `cofferdam.toml`, then the environment, then flags. Everything is checked here, before
//! anything is bound, and all faults are told at once. Every key that is read is recorded, so that the whole can be shown.

mod bounds;
mod bundled;
mod bus;
mod env;
mod executor;
mod failure;
mod fault;
mod file;
mod grpc;
mod isolation;
mod limits;
mod literal;
mod manifest;
mod methods;
mod paths;
mod place;
mod plugin;
mod reader;
mod secret;
mod service;
mod settings;
mod show;
mod source;
mod subscription;
#[cfg(test)]
mod tests;
mod token;
mod upstreams;
mod words;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_sandbox::Isolation;
pub use env::Environment;
pub use executor::{
    Backend, EndpointSettings, ExecutorConfig, InferenceConfig, ModelSettings, OfflineConfig, Share, unused,
};
pub use failure::{FailurePolicy, OnFailure};
pub use fault::{Fault, Faults};
pub use isolation::IsolationConfig;
pub(crate) use isolation::isolation_text;
pub use limits::{Ceilings, LimitsConfig, PluginLimits};
pub use manifest::{Manifest, MetricKind, MetricSpec};
pub use methods::{Methods, is_method, is_service};
pub(crate) use plugin::trespass;
pub use secret::{Secret, Url};
use serde_json::Value;
pub use service::{Method, MethodKind, Service};
pub use settings::{Origin, Setting, Settings};
pub use subscription::{Class, KeyPlace, KeySource, Subscription};

use crate::grants::{Grants, Kind};

#[derive(Debug, Clone)]
pub struct Config {
    pub bus: BusConfig,
    pub admin: AdminConfig,
    pub grpc: GrpcConfig,
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
    pub kind: BusKind,
    /// Create the streams of the fleet contract that nobody created yet.
    pub create_streams: bool,
}

#[derive(Debug, Clone)]
pub enum BusKind {
    /// Embedded, in this directory.
    Local {
        directory: PathBuf,
    },
    Nats(NatsSettings),
}

#[derive(Debug, Clone)]
pub struct NatsSettings {
    pub urls: Vec<Url>,
    pub credentials: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub connect_timeout: Duration,
    /// Of each stream that the daemon creates.
    pub replicas: u32,
}

#[derive(Debug, Clone)]
pub struct AdminConfig {
    pub listen: SocketAddr,
    /// Asked of whoever publishes or reads there. There is one unless `listen` is on loopback.
    pub token: Option<Secret>,
}

/// Where plugins serve gRPC.
#[derive(Debug, Clone)]
pub struct GrpcConfig {
    /// None: nothing is served.
    pub listen: Vec<SocketAddr>,
    /// The server's certificate and its key, for TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A client has to have a certificate of it.
    pub client_ca: Option<PathBuf>,
    /// Answered at once on this host; more are turned away.
    pub max_calls: u32,
    /// Of one request, in bytes.
    pub max_request: usize,
    /// What a client waits for that sets no deadline.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// As `tracing_subscriber::EnvFilter` reads it: `info`, `cofferdam=debug,warn`. Checked.
    pub level: String,
    pub json: bool,
}

#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// Compiled components.
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
    /// An event that ran alone so often, and each time its host died, becomes a dead letter unrun.
    pub max_deliveries: u32,
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
    /// Whose answers are recorded before a guest sees them.
    pub once: Methods,
    /// What to do about a call of those whose outcome nobody knows.
    pub unknown_outcome: UnknownOutcome,
    /// That may be sent again whatever became of the call.
    pub idempotent: Methods,
    /// How often the host repeats a call, where that is safe.
    pub retries: u32,
}

impl Upstream {
    /// Where what this daemon serves itself is called, in memory.
    pub(crate) const OWN: &str = "self";

    pub fn is_own(&self) -> bool {
        self.address == Self::OWN
    }
}

/// A `once` call was begun by an earlier run, and no answer is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// It is sent again, with the same key.
    Repeat,
    /// The guest is told, and decides.
    Ask,
}

#[derive(Debug, Clone)]
pub struct PluginConfig {
    pub name: String,
    pub component: PathBuf,
    pub manifest_file: PathBuf,
    pub manifest: Manifest,
    pub grants: Grants,
    pub values: BTreeMap<String, Value>,
    pub limits: PluginLimits,
    /// How many of its events an instance serves.
    pub isolation: Isolation,
}

impl PluginConfig {
    /// The methods that it may serve: those of its manifest that are granted.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Method>> {
        let all = self.manifest.services.iter().flat_map(|service| &service.methods);
        all.filter(|method| self.grants.granted.covers(Kind::Serve, &method.path))
    }

    /// Does it keep cells of events in a space that is neither its own nor granted?
    pub fn trespasses(&self) -> bool {
        let space = &self.manifest.space;
        let cells = self.manifest.subscriptions.iter().any(|s| s.class == Class::Cell)
            || self.served().any(|method| method.has_cell());
        cells && *space != self.name && !self.grants.granted.covers(Kind::State, space)
    }
}

/// Where a configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    File(PathBuf),
    /// What the program brings along. Its relative paths are relative to the working directory.
    BuiltIn,
}

impl Location {
    /// The file that was named, else `cofferdam.toml` of the working directory if anything is in it, else the built-in
    /// configuration. The empty one is what a shell makes for `cofferdam config show > cofferdam.toml` before we run.
    pub fn find(named: Option<PathBuf>) -> Self {
        const DEFAULT: &str = "cofferdam.toml";
        match named {
            Some(file) => Self::File(file),
            // Whatever else is there, readable or not, was meant.
            None if Path::new(DEFAULT).symlink_metadata().is_err() || is_empty(Path::new(DEFAULT)) => {
                Self::BuiltIn
            }
            None => Self::File(DEFAULT.into()),
        }
    }
}

/// A file with nothing but white space.
fn is_empty(file: &Path) -> bool {
    file.is_file() && std::fs::read_to_string(file).is_ok_and(|text| text.trim().is_empty())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(file) => file.display().fmt(f),
            Location::BuiltIn => f.write_str("the built-in configuration"),
        }
    }
}

/// What came of reading a configuration.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Only to look at, if there are faults: what has one is missing, or has its default.
    pub config: Config,
    pub faults: Vec<Fault>,
    /// Every key that there is, with its value and where that comes from.
    pub settings: Settings,
}

impl Reading {
    /// Reads the config and the manifests it names, then lets the environment override it.
    pub fn of(location: &Location, environment: &Environment) -> Result<Self, Faults> {
        file::read(location, environment, true)
    }

    /// The same for a process that loads no plugin: whatever there is about plugins is passed over.
    fn without_plugins(location: &Location, environment: &Environment) -> Result<Self, Faults> {
        file::read(location, environment, false)
    }

    fn faultless(self) -> Result<Config, Faults> {
        if self.faults.is_empty() { Ok(self.config) } else { Err(Faults(self.faults)) }
    }
}

impl Config {
    /// Is the daemon an upstream of its own plugins?
    pub fn calls_itself(&self) -> bool {
        self.upstreams.values().any(Upstream::is_own)
    }

    /// Does the daemon work jobs itself? Where others can reach the queues of endpoints, `cofferdam executor` does.
    pub fn works_jobs(&self) -> bool {
        let alone = matches!(self.bus.kind, BusKind::Local { .. });
        self.executor.as_ref().is_some_and(|executor| alone || executor.backend != Backend::Queue)
    }

    /// A config without any fault.
    pub fn load(location: &Location, environment: &Environment) -> Result<Self, Faults> {
        Reading::of(location, environment)?.faultless()
    }

    /// The same for `cofferdam executor`: whose plugins are not there, or not fit, works jobs all the same.
    pub fn load_executor(location: &Location, environment: &Environment) -> Result<Self, Faults> {
        Reading::without_plugins(location, environment)?.faultless()
    }
}
