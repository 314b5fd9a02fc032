//! WASI 0.2 for components that import it, without any authority: no files, no network, no environment, no arguments,
//! standard input closed. Clocks and randomness follow from the event alone, so that every run of it sees the
//! same; standard output and error become log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, add_to_linker_async, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::instance::State;

/// Each reading of a clock moves it on by this: a guest that waits for time to pass must see it pass.
const CLOCK_STEP: u64 = 1_000;
/// Of one request: enough for any seed, and little work that no tick can interrupt.
const MAX_RANDOM: u64 = 1 << 20;
/// Streams, pollables and the like that a guest can hold: each is memory of the host.
const MAX_RESOURCES: usize = 4_096;
/// As many of them an instance can take along to its next event: the standard streams, and some that it keeps.
/// One with more is leaking them.
const KEPT_RESOURCES: usize = 64;
/// A write gets at most this much at once.
const WRITE_PERMIT: usize = 64 << 10;

/// Links all of `wasi:cli`, `clocks`, `filesystem`, `io`, `random` and `sockets`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    add_to_linker_async(linker)?;
    // Ours in the place of those that read the machine's clock and entropy.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<State, HasSelf<Wasi>>(linker, State::wasi)?;
    monotonic_clock::add_to_linker::<State, HasSelf<Wasi>>(linker, State::wasi)?;
    random::add_to_linker::<State, HasSelf<Wasi>>(linker, State::wasi)?;
    insecure::add_to_linker::<State, HasSelf<Wasi>>(linker, State::wasi)?;
    insecure_seed::add_to_linker::<State, HasSelf<Wasi>>(linker, State::wasi)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What an instance holds of WASI, set for the event that it serves.
pub(crate) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    /// Nanoseconds since 1970: both clocks.
    now: Arc<AtomicU64>,
    random: Random,
    output: Arc<Mutex<Output>>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.table }
    }
}

impl Wasi {
    /// For one run of the event of this id and time.
    pub(crate) fn new(id: &str, timestamp: u64, max_output: usize) -> Self {
        let output = Arc::new(Mutex::new(Output { left: max_output, ..Output::default() }));
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            // Its defaults are: nothing preopened, no environment, no arguments, standard input closed, no
            // sockets, no names looked up.
            context: WasiCtx::builder()
                .stdout(Pipe { stream: Stream::Out, output: output.clone() })
                .stderr(Pipe { stream: Stream::Err, output: output.clone() })
                .build(),
            table,
            now: Arc::new(AtomicU64::new(timestamp)),
            random: Random { seed: Sha256::digest(id).into(), block: 0 },
            output,
        }
    }

    /// For the next event of an instance. The guest's handles stay good, as guests keep those of the standard streams; there
    /// is nothing behind them but what is new here, and timers, which keep the clock that they were made with.
    pub(crate) fn renew(&mut self, id: &str, timestamp: u64, max_output: usize) {
        self.now = Arc::new(AtomicU64::new(timestamp));
        self.random = Random { seed: Sha256::digest(id).into(), block: 0 };
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) =
            Output { left: max_output, ..Output::default() };
    }

    /// Does the guest hold no more than what may stay for the next event?
    pub(crate) fn is_tidy(&mut self) -> bool {
        self.table.iter_mut().nth(KEPT_RESOURCES).is_none()
    }

    /// The lines written since the last time; at the `end` unfinished ones too.
    pub(crate) fn take_output(&mut self, end: bool) -> Vec<(Stream, String)> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take(end)
    }

    fn read_clock(&self) -> u64 {
        self.now.fetch_add(CLOCK_STEP, Ordering::Relaxed).wrapping_add(CLOCK_STEP)
    }

    /// Real time has to pass, at most until the wall limit; then the guest's clocks show that it passed.
    fn timer(&mut self, until: u64, wait: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = Timer {
            deadline: Instant::now().checked_add(Duration::from_nanos(wait)),
            clock: self.now.clone(),
            until,
        };
        let timer = self.table.push(timer)?;
        subscribe(&mut self.table, timer)
    }
}

impl wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = Duration::from_nanos(self.read_clock());
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let step = Duration::from_nanos(CLOCK_STEP);
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: step.subsec_nanos() })
    }
}

impl monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.read_clock())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(CLOCK_STEP)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.timer(when, when.saturating_sub(self.now.load(Ordering::Relaxed)))
    }

    fn subscribe_duration(&mut self, wait: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.timer(self.now.load(Ordering::Relaxed).saturating_add(wait), wait)
    }
}

struct Timer {
    /// `None`: too far away for this machine's clock.
    deadline: Option<Instant>,
    clock: Arc<AtomicU64>,
    until: u64,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
        self.clock.fetch_max(self.until, Ordering::Relaxed);
    }
}

/// SHA-256 in counter mode, seeded by the event's id. The same for every run of the event, so it is no secret:
/// a guest has nobody to hide from.
struct Random {
    seed: [u8; 32],
    block: u64,
}

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block =
                Sha256::new().chain_update(self.seed).chain_update(self.block.to_be_bytes()).finalize();
            self.block += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }

    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > MAX_RANDOM {
            wasmtime::bail!("{len} random bytes asked for at once, {MAX_RANDOM} is the most");
        }
        let mut bytes = vec![0; usize::try_from(len)?];
        self.fill(&mut bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}

impl random::Host for Wasi {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.number())
    }
}

impl insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.number())
    }
}

impl insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.number(), self.random.number()))
    }
}

/// Which of the two a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What was written and not yet logged.
#[derive(Default)]
struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Bytes that may still come.
    left: usize,
    dropped: usize,
}

impl Output {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = bytes.len().min(self.left);
        self.left -= kept;
        self.dropped += bytes.len() - kept;
        let buffer = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        buffer.extend_from_slice(&bytes[..kept]);
    }

    fn take(&mut self, end: bool) -> Vec<(Stream, String)> {
        let mut lines = Vec::new();
        for (stream, buffer) in [(Stream::Out, &mut self.out), (Stream::Err, &mut self.err)] {
            let whole = match buffer.iter().rposition(|byte| *byte == b'\n') {
                _ if end => buffer.len(),
                Some(last) => last + 1,
                None => 0,
            };
            let taken: Vec<u8> = buffer.drain(..whole).collect();
            let text = String::from_utf8_lossy(&taken);
            lines.extend(text.lines().filter(|line| !line.is_empty()).map(|line| (stream, line.to_owned())));
        }
        if end && self.dropped > 0 {
            lines.push((
                Stream::Err,
                format!("{} more bytes of output dropped (limit `output`)", self.dropped),
            ));
            self.dropped = 0;
        }
        lines
    }
}

/// One end of a standard stream.
#[derive(Clone)]
struct Pipe {
    stream: Stream,
    output: Arc<Mutex<Output>>,
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    /// Of WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}
