//! The wasmtime engine: every setting that shapes compiled code or the pool, with its reason, and the thread
//! that ticks and clears away what is idle. What one run may use is in `limits`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::config::SandboxConfig;
use crate::error::SandboxError;
use crate::isolation::Pool;

/// Room on a run's stack for host calls, which run on it too. Unoptimised gRPC code takes most of 1 MiB.
const HOST_STACK: usize = 2 << 20;
/// Guests composed of several components have a memory each; more than four have not been seen.
const MEMORIES_PER_COMPONENT: u32 = 4;
/// A component made of one module has two tables, one with an adapter three.
const TABLES_PER_COMPONENT: u32 = 8;
/// Python is the largest: each shared library is a module.
const CORE_INSTANCES_PER_COMPONENT: u32 = 128;
/// Bookkeeping of one component instance, by the same measure.
const COMPONENT_INSTANCE_SIZE: usize = 4 << 20;
/// Pages of a memory that are cleared rather than given back after a run. 35 us per instance became 18 us with it
/// (and with `pagemap_scan`).
const KEEP_RESIDENT: usize = 256 << 10;
/// The same of a table: most guests have a hundred functions or a thousand in theirs.
const KEEP_TABLE: usize = 16 << 10;
/// Frames of a trap's backtrace.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

pub(crate) fn settings(config: &SandboxConfig) -> Config {
    let instances = config.max_instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_component_instance_size(COMPONENT_INSTANCE_SIZE)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_memories_per_module(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_memory_size(config.max_memory)
        .table_elements(config.max_table_elements)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_TABLE)
        // Where the kernel has it (Linux 6.7).
        .pagemap_scan(Enabled::Auto);

    let mut settings = Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        // One host call at a time; and 18 us per instance became 12.5 us.
        .concurrency_support(false)
        .epoch_interruption(true)
        // The same results on every machine. Threads are not compiled in at all (wasmtime's feature `threads`).
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .shared_memory(false)
        .max_wasm_stack(config.max_stack)
        .async_stack_size(config.max_stack.saturating_add(HOST_STACK))
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    settings
}

pub(crate) fn engine(config: &SandboxConfig) -> Result<Engine, SandboxError> {
    let positive = [
        ("max_instances", u64::from(config.max_instances)),
        ("max_memory", config.max_memory as u64),
        ("max_table_elements", config.max_table_elements as u64),
        ("max_stack", config.max_stack as u64),
        ("tick (ns)", u64::try_from(config.tick.as_nanos()).unwrap_or(u64::MAX)),
    ];
    for (setting, value) in positive {
        if value == 0 {
            return Err(SandboxError::Setting {
                setting,
                value: value.to_string(),
                remedy: "it must be above zero",
            });
        }
    }
    if config.max_memory as u64 > 4 << 30 {
        return Err(SandboxError::Setting {
            setting: "max_memory",
            value: config.max_memory.to_string(),
            remedy: "a 32-bit guest has at most 4 GiB (4294967296)",
        });
    }
    Engine::new(&settings(config)).map_err(|error| SandboxError::Engine(format!("{error:#}")))
}

/// Moves the engine's epoch on and drops instances that are idle for too long, until it is dropped itself.
#[derive(Debug)]
pub(crate) struct Ticker {
    _stop: Sender<()>,
}

impl Ticker {
    pub(crate) fn start(
        engine: &Engine,
        config: &SandboxConfig,
        pool: Arc<Pool>,
    ) -> Result<Self, SandboxError> {
        let SandboxConfig { tick, idle, .. } = *config;
        let (stop, stopped) = channel();
        let engine = engine.weak();
        thread::Builder::new()
            .name("cofferdam-tick".to_owned())
            .spawn(move || {
                let mut looked = Instant::now();
                while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                    if looked.elapsed() >= idle / 4 {
                        looked = Instant::now();
                        pool.drop_idle(idle);
                    }
                }
            })
            .map_err(SandboxError::Ticker)?;
        Ok(Self { _stop: stop })
    }
}
