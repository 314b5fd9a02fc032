//! What one run may use, and the watch over its memory and tables. CPU and wall time are measured in `meter`
//! and `instance`, host calls are counted in `instance`.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::config::SandboxConfig;

/// Bytes that an instance's memory may have grown since it was made, for it to serve another event. Memory never
/// shrinks, so an instance of a guest that once needed much would hold that much for as long as it lives.
const KEPT_GROWTH: usize = 4 << 20;

/// What one run of one event or request may use. Past any of them the run ends with the `Ending` of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of the guest and of the host calls' own work; waiting does not count. Checked on each
    /// tick (10 ms), so a run may exceed it by one. Default 1 s: a bundled guest needs well under 1 ms.
    pub cpu: Duration,
    /// From the start of the handler to its end, waiting included. Default 60 s: enough for a few calls to slow
    /// upstreams.
    pub wall: Duration,
    /// Bytes of all linear memories together, earlier events' of the instance included; at most `SandboxConfig::max_memory`. Default 64 MiB.
    pub memory: usize,
    /// Elements of all tables together; at most `SandboxConfig::max_table_elements`. Default 20,000,
    /// wasmtime's own.
    pub table_elements: usize,
    /// Calls through the seam, WASI not counted. Default 10,000, as the contract says.
    pub host_calls: u32,
    /// Bytes of standard output and error that are logged; the rest is dropped and counted. Default 64 KiB, as for
    /// the contract's log.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(1),
            wall: Duration::from_secs(60),
            memory: 64 << 20,
            table_elements: 20_000,
            host_calls: 10_000,
            output: 64 << 10,
        }
    }
}

/// Grants or refuses growth, and remembers that it refused: the trap which usually follows is then told for what
/// it is.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: Gauge,
    tables: Gauge,
}

/// One bounded quantity.
#[derive(Debug)]
struct Gauge {
    limit: usize,
    used: usize,
    /// Of that, what the instance began with.
    begun: usize,
    /// Of the growth granted last, in case it fails after all.
    granted: usize,
    peak: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits, ceiling: &SandboxConfig) -> Self {
        Self {
            memory: Gauge::new(limits.memory.min(ceiling.max_memory)),
            tables: Gauge::new(limits.table_elements.min(ceiling.max_table_elements)),
        }
    }

    /// For the next event of an instance. What it holds stays counted.
    pub(crate) fn renew(&mut self, limits: &Limits, ceiling: &SandboxConfig) {
        self.memory.renew(limits.memory.min(ceiling.max_memory));
        self.tables.renew(limits.table_elements.min(ceiling.max_table_elements));
    }

    /// Would an instance that holds this much be within these limits?
    pub(crate) fn fits(&self, limits: &Limits) -> bool {
        self.memory.used <= limits.memory && self.tables.used <= limits.table_elements
    }

    /// The instance is made; what it grows from here is the events' doing.
    pub(crate) fn begin(&mut self) {
        self.memory.begun = self.memory.used;
        self.tables.begun = self.tables.used;
    }

    /// May the instance serve another event, as far as its memory and tables go? Not if it reached a limit, though the guest
    /// coped with that; and half the room has to be left, so that events have it that leave nothing behind themselves.
    pub(crate) fn may_go_on(&self) -> bool {
        self.memory.may_go_on(KEPT_GROWTH) && self.tables.may_go_on(usize::MAX)
    }

    pub(crate) fn memory_peak(&self) -> usize {
        self.memory.peak
    }

    pub(crate) fn refused_memory(&self) -> bool {
        self.memory.refused
    }

    pub(crate) fn refused_table(&self) -> bool {
        self.tables.refused
    }
}

impl Gauge {
    fn new(limit: usize) -> Self {
        Self { limit, used: 0, begun: 0, granted: 0, peak: 0, refused: false }
    }

    fn renew(&mut self, limit: usize) {
        *self = Self { used: self.used, begun: self.begun, peak: self.used, ..Self::new(limit) };
    }

    fn may_go_on(&self, most: usize) -> bool {
        let half = self.limit.saturating_sub(self.begun) / 2;
        !self.refused && self.used.saturating_sub(self.begun) <= most.min(half)
    }

    /// `maximum` is the guest's own: beyond it the refusal is not ours.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let more = desired.saturating_sub(current);
        let total = self.used.saturating_add(more);
        if total > self.limit {
            self.refused = true;
            return false;
        }
        self.granted = more;
        self.used = total;
        self.peak = self.peak.max(total);
        true
    }

    fn failed(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.granted));
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.grow(current, desired, maximum))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "memory did not grow");
        self.memory.failed();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.tables.grow(current, desired, maximum))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "table did not grow");
        self.tables.failed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_limited_together() {
        let limits = Limits { memory: 100, ..Limits::default() };
        let mut limiter = Limiter::new(&limits, &SandboxConfig::default());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.refused_memory());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.refused_memory());
        assert_eq!(limiter.memory_peak(), 100);
    }

    #[test]
    fn the_guests_own_maximum_is_not_a_refusal_of_ours() {
        let mut limiter = Limiter::new(&Limits::default(), &SandboxConfig::default());
        assert!(!limiter.memory_growing(0, 200, Some(100)).unwrap());
        assert!(!limiter.refused_memory());
    }

    #[test]
    fn the_ceiling_of_the_sandbox_holds_for_every_plugin() {
        let limits = Limits { memory: usize::MAX, ..Limits::default() };
        let config = SandboxConfig { max_memory: 1 << 20, ..SandboxConfig::default() };
        let mut limiter = Limiter::new(&limits, &config);
        assert!(!limiter.memory_growing(0, (1 << 20) + 1, None).unwrap());
        assert!(limiter.refused_memory());
    }
}
