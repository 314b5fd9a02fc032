//! What a sandbox is given once, for all plugins. What one run may use is in `limits`.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a whole sandbox. The defaults fit a host that serves a handful of plugins.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Where compiled components are kept. `None`: each start compiles anew. The directory is created with
    /// mode 0700; one that others can write to is refused, for what lies in it becomes machine code here.
    pub cache_dir: Option<PathBuf>,
    /// Live instances at a time, over all plugins, idle ones included. A run past it waits. Address space is reserved for each
    /// (16 GiB, most of it never touched), memory is not. Default 128: waiting for an upstream holds an
    /// instance, so this is far above the number of cores.
    pub max_instances: u32,
    /// The most that any plugin's `Limits::memory` can be, in bytes. Default 256 MiB: twenty times what the
    /// largest guest language seen needs (Python, 12.4 MiB).
    pub max_memory: usize,
    /// The most that any plugin's `Limits::table_elements` can be. Default 50,000: C# in debug builds has
    /// been seen with over 10,000.
    pub max_table_elements: usize,
    /// Stack of the guest, in bytes. Default 512 KiB, wasmtime's own.
    pub max_stack: usize,
    /// An instance that waits for the next event of its batch is dropped after this long (or a quarter longer), and
    /// earlier where others need its place. Default 10 s: events that come more rarely can pay for an instance of their
    /// own.
    pub idle: Duration,
    /// How often a guest that computes gives way to others and has its CPU time checked, so also how far past
    /// its budget it can get. Default 10 ms.
    pub tick: Duration,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            max_instances: 128,
            max_memory: 256 << 20,
            max_table_elements: 50_000,
            max_stack: 512 << 10,
            idle: Duration::from_secs(10),
            tick: Duration::from_millis(10),
        }
    }
}
