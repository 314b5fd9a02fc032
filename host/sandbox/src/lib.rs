//! Runs components: engine, artifacts, limits, instances, bindings. Knows nothing of the bus or of config files.
//!
//! ```text
//! Sandbox::load -> inspect -> artifacts (or compile) -> bindings (link) -> Plugin
//! Plugin::handle -> instance (store, limits, meter) -> guest <-> bindings <-> seam <-> Host
//! ```
//!
//! **Invariants.** A run cannot outlive its limits, nor the future that waits for it. A host call has one way out,
//! `instance::State::call`. A refusal or a limit is an [`Ending`], never a panic or an error of the sandbox. Code that
//! this sandbox did not compile is never executed.

mod artifacts;
mod bindings;
mod config;
mod ending;
mod engine;
mod error;
mod inspect;
mod instance;
mod limits;
mod meter;
mod seam;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wasi;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasmtime::Engine;

use crate::artifacts::Artifacts;
use crate::bindings::Bindings;
use crate::engine::Ticker;

pub use crate::config::SandboxConfig;
pub use crate::ending::{Ending, Run, Usage};
pub use crate::error::{LoadError, SandboxError};
pub use crate::inspect::{Digest, Shape};
pub use crate::limits::Limits;
pub use crate::seam::*;

/// One engine with its pool of instances and its cache; all plugins of a host share it. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    config: SandboxConfig,
    artifacts: Option<Artifacts>,
    /// As many permits as the pool has slots.
    instances: Semaphore,
    _ticker: Ticker,
}

impl Sandbox {
    /// Reserves the pool's address space, opens the cache and starts the thread that ticks, which ends with the
    /// last clone and plugin.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let engine = engine::engine(&config)?;
        let artifacts =
            config.cache_dir.as_deref().map(|directory| Artifacts::open(directory, &engine)).transpose()?;
        let ticker = Ticker::start(&engine, config.tick)?;
        let instances =
            Semaphore::new(usize::try_from(config.max_instances).unwrap_or(Semaphore::MAX_PERMITS));
        Ok(Self { shared: Arc::new(Shared { engine, config, artifacts, instances, _ticker: ticker }) })
    }

    /// Reads what a component is. Nothing is compiled.
    pub fn inspect(bytes: &[u8]) -> Result<Shape, LoadError> {
        inspect::inspect(bytes)
    }

    /// Inspects a component, takes it from the cache or compiles it (on a thread for blocking work; seconds for
    /// Python or JavaScript), and links it.
    pub async fn load(&self, bytes: Bytes) -> Result<Plugin, LoadError> {
        let sandbox = self.clone();
        tokio::task::spawn_blocking(move || sandbox.load_blocking(&bytes))
            .await
            .map_err(|error| LoadError::Interrupted(error.to_string()))?
    }

    fn load_blocking(&self, bytes: &[u8]) -> Result<Plugin, LoadError> {
        let shape = inspect::inspect(bytes)?;
        let Shared { engine, artifacts, .. } = &*self.shared;
        let start = Instant::now();
        let cached = artifacts.as_ref().and_then(|artifacts| artifacts.get(engine, shape.digest));
        let (component, source) = match cached {
            Some(component) => (component, Source::Cached { took: start.elapsed() }),
            None => {
                let component = artifacts::compile(engine, bytes)?;
                let source = Source::Compiled { took: start.elapsed() };
                if let Some(artifacts) = artifacts {
                    artifacts.put(shape.digest, &component);
                }
                (component, source)
            }
        };
        let bindings = Bindings::link(engine, &component, &shape)?;
        Ok(Plugin { shared: self.shared.clone(), loaded: Arc::new(Loaded { shape, source, bindings }) })
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// Where a plugin's machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Compiled { took: Duration },
    Cached { took: Duration },
}

/// A component, ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
}

struct Loaded {
    shape: Shape,
    source: Source,
    bindings: Bindings,
}

impl Plugin {
    pub fn shape(&self) -> &Shape {
        &self.loaded.shape
    }

    pub fn source(&self) -> Source {
        self.loaded.source
    }

    /// Runs one event in a fresh instance and gives the host back, however the run ended. Waits for a free
    /// instance first. Dropping the future stops the guest, and drops the host with it.
    pub async fn handle(&self, host: Box<dyn Host>, event: Event, limits: &Limits) -> Run {
        let Shared { engine, config, instances, .. } = &*self.shared;
        // Held until the instance is gone. The semaphore is never closed, so this never fails.
        let _permit = instances.acquire().await;
        instance::run(engine, &self.loaded.bindings, config, host, event, limits).await
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("shape", &self.loaded.shape)
            .field("source", &self.loaded.source)
            .finish_non_exhaustive()
    }
}
