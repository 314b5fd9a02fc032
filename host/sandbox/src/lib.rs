//! Runs components: engine, artifacts, limits, instances, bindings. Knows nothing of the bus or of config files.
//!
//! ```text
//! Sandbox::load -> inspect -> artifacts (or compile) -> bindings (link) -> Plugin
//! Plugin::handle, serve -> isolation (a place, or an idle instance) -> instance (store, limits, meter)
//!     -> guest <-> bindings <-> seam <-> Host
//! ```
//!
//! **Invariants.** A run cannot outlive its limits, nor the future that waits for it. A host call has one way out,
//! `instance::State::call`. A refusal or a limit is an [`Ending`], never a panic or an error of the sandbox. Code that
//! this sandbox did not compile is never executed. Nothing of one event's or request's host is in
//! the store when the next one's run begins.

mod artifacts;
mod bindings;
mod config;
mod ending;
mod engine;
mod error;
mod inspect;
mod instance;
mod isolation;
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
use wasmtime::Engine;

use crate::artifacts::Artifacts;
use crate::bindings::Bindings;
use crate::engine::Ticker;
use crate::instance::{Instance, Task};
use crate::isolation::{Idle, Pool};

pub use crate::config::SandboxConfig;
pub use crate::ending::{Ending, Run, Usage};
pub use crate::error::{LoadError, SandboxError};
pub use crate::inspect::{Digest, Shape};
pub use crate::isolation::Isolation;
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
    pool: Arc<Pool>,
    _ticker: Ticker,
}

impl Sandbox {
    /// Reserves the pool's address space, opens the cache and starts the thread that ticks, which ends with the
    /// last clone and plugin.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let engine = engine::engine(&config)?;
        let artifacts =
            config.cache_dir.as_deref().map(|directory| Artifacts::open(directory, &engine)).transpose()?;
        let pool = Pool::new(config.max_instances);
        let ticker = Ticker::start(&engine, &config, pool.clone())?;
        Ok(Self { shared: Arc::new(Shared { engine, config, artifacts, pool, _ticker: ticker }) })
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
        let loaded = Loaded { shape, source, bindings };
        Ok(Plugin { shared: self.shared.clone(), loaded: Arc::new(loaded), batch: None })
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

/// A component, ready to run. Cheap to clone; clones share the instances that wait for events.
#[derive(Clone)]
pub struct Plugin {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
    batch: Option<Batch>,
}

#[derive(Clone)]
struct Batch {
    events: u32,
    idle: Arc<Idle>,
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

    /// The same component with instances of its own, kept apart like this. As loaded it is [`Isolation::Event`].
    #[must_use]
    pub fn isolated(mut self, isolation: Isolation) -> Self {
        self.batch = match isolation {
            Isolation::Batch { events } if events > 1 => {
                Some(Batch { events, idle: Idle::new(&self.shared.pool) })
            }
            Isolation::Event | Isolation::Batch { .. } => None,
        };
        self
    }

    /// Runs one event, in a fresh instance unless it is [isolated](Self::isolated) otherwise, and gives the host back,
    /// however the run ended. Waits for a free instance first. Dropping the future stops the guest, and drops the instance
    /// and the host with it.
    pub async fn handle(&self, host: Box<dyn Host>, event: Event, limits: &Limits) -> Run {
        let idle = self.batch.as_ref().map(|batch| &*batch.idle);
        self.run(idle, host, Task::Handle(event), limits).await
    }

    /// The same in a fresh instance, however it is isolated: what earlier events left in another may be why a run
    /// [broke off](Ending::broke_off).
    pub async fn handle_in_fresh(&self, host: Box<dyn Host>, event: Event, limits: &Limits) -> Run {
        self.run(None, host, Task::Handle(event), limits).await
    }

    /// Runs one request, as [`handle`](Self::handle) runs an event: under the same limits, in the same instances. For a
    /// component that [serves](Shape::serves).
    pub async fn serve(&self, host: Box<dyn Host>, request: Request, limits: &Limits) -> Run {
        let idle = self.batch.as_ref().map(|batch| &*batch.idle);
        self.run_request(idle, host, request, limits).await
    }

    /// The same in a fresh instance; see [`handle_in_fresh`](Self::handle_in_fresh).
    pub async fn serve_in_fresh(&self, host: Box<dyn Host>, request: Request, limits: &Limits) -> Run {
        self.run_request(None, host, request, limits).await
    }

    async fn run_request(
        &self,
        idle: Option<&Idle>,
        host: Box<dyn Host>,
        request: Request,
        limits: &Limits,
    ) -> Run {
        if self.loaded.shape.serves {
            return self.run(idle, host, Task::Serve(request), limits).await;
        }
        let message = format!("bug in the host: {} for a component that does not serve", request.method);
        Run { host, ending: Ending::HostFault { message }, answer: None, usage: Usage::default() }
    }

    async fn run(&self, idle: Option<&Idle>, host: Box<dyn Host>, task: Task, limits: &Limits) -> Run {
        let Shared { engine, config, pool, .. } = &*self.shared;
        // Held until the instance is idle or gone.
        let _permit = pool.permit().await;
        let warm = idle.and_then(Idle::take).filter(|warm| warm.fits(limits));
        let mut instance = match warm {
            Some(mut warm) => {
                warm.renew(host, &task, limits, config);
                warm
            }
            None => Instance::new(engine, pool.slot().await, host, &task, limits, config),
        };
        let run = instance.run(&self.loaded.bindings, task, limits).await;
        // Only here an instance gets to another task: not by a future that was dropped, nor from a panic.
        if let Some(Batch { events, idle }) = &self.batch
            && run.ending == Ending::Ok
            && instance.may_go_on(*events)
        {
            idle.put(instance);
        }
        run
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
