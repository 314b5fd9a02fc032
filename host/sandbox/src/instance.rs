//! One run of one event: a fresh instance, its store, its limits, its end.

use std::pin::pin;

use tokio::time::{Instant, timeout};
use wasmtime::{Engine, Store, Trap};

use crate::bindings::{Bindings, answer_name};
use crate::config::SandboxConfig;
use crate::ending::{Ending, Run, Usage, trap_message};
use crate::limits::{Limiter, Limits};
use crate::meter::{Metered, Spent};
use crate::seam::{Answer, Call, Event, Host, LogLevel};
use crate::wasi::{Stream, Wasi};

/// Bytes of the guest's last words that a trap's message shows.
const LAST_WORDS: usize = 500;

/// What a store holds: the way from the guest to its host.
pub(crate) struct State {
    host: Box<dyn Host>,
    limiter: Limiter,
    host_calls: u32,
    max_host_calls: u32,
    /// Why the run must end, whatever error the guest's call ends with.
    stopped: Option<Ending>,
    last_words: Option<String>,
    stderr: String,
    /// Made when the guest first uses it: most never do.
    wasi: Option<Box<Wasi>>,
    event: (String, u64),
    max_output: usize,
}

impl State {
    fn new(host: Box<dyn Host>, event: &Event, limits: &Limits, ceiling: &SandboxConfig) -> Self {
        Self {
            host,
            limiter: Limiter::new(limits, ceiling),
            host_calls: 0,
            max_host_calls: limits.host_calls,
            stopped: None,
            last_words: None,
            stderr: String::new(),
            wasi: None,
            event: (event.id.clone(), event.timestamp),
            max_output: limits.output,
        }
    }

    /// The one way out of the guest: counts, and asks the host.
    pub(crate) async fn call(&mut self, call: Call) -> wasmtime::Result<Answer> {
        if self.host_calls >= self.max_host_calls {
            self.stopped = Some(Ending::HostCallLimit);
            wasmtime::bail!("more than {} host calls", self.max_host_calls);
        }
        self.host_calls += 1;
        self.log_output(false).await;
        if let Call::Log { level: LogLevel::Error, message, .. } = &call {
            self.last_words = Some(shortened(message));
        }
        Ok(self.host.call(call).await)
    }

    /// An answer to another call than was made.
    pub(crate) fn wrong_answer(&mut self, expected: &str, answer: &Answer) -> wasmtime::Error {
        let message = format!(
            "bug in the host: a call that is answered by Answer::{expected} was answered by Answer::{}",
            answer_name(answer)
        );
        self.stopped = Some(Ending::HostFault { message: message.clone() });
        wasmtime::Error::msg(message)
    }

    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(&self.event.0, self.event.1, self.max_output)))
    }

    /// Logs what the guest wrote to its standard output and error: whole lines, at the `end` all.
    async fn log_output(&mut self, end: bool) {
        let Some(wasi) = &mut self.wasi else { return };
        for (stream, message) in wasi.take_output(end) {
            let (level, stream) = match stream {
                Stream::Out => (LogLevel::Info, "stdout"),
                Stream::Err => {
                    if self.stderr.len() < LAST_WORDS {
                        self.stderr.push_str(if self.stderr.is_empty() { "" } else { " " });
                        self.stderr.push_str(&message);
                    }
                    (LogLevel::Warn, "stderr")
                }
            };
            let fields = vec![("stream".to_owned(), stream.to_owned())];
            // A line of the guest's output has no way to fail.
            self.host.call(Call::Log { level, message, fields }).await;
        }
    }

    fn last_words(&self) -> Option<String> {
        self.last_words.clone().or_else(|| (!self.stderr.is_empty()).then(|| shortened(&self.stderr)))
    }
}

/// On one line, and not too long.
fn shortened(text: &str) -> String {
    let mut short = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if short.len() > LAST_WORDS {
        short.truncate(short.floor_char_boundary(LAST_WORDS));
        short.push_str("...");
    }
    short
}

/// Runs an event in a fresh instance. The caller holds a permit for it.
pub(crate) async fn run(
    engine: &Engine,
    bindings: &Bindings,
    ceiling: &SandboxConfig,
    host: Box<dyn Host>,
    event: Event,
    limits: &Limits,
) -> Run {
    let start = Instant::now();
    let mut store = Store::new(engine, State::new(host, &event, limits, ceiling));
    store.limiter(|state| &mut state.limiter);
    // What a guest hands over in one call is held on the host: no more than it could hold itself.
    store.set_hostcall_fuel(limits.memory.min(ceiling.max_memory));
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);

    // In a block, for the guest is stopped by dropping its future.
    let (outcome, cpu) = {
        let guest = pin!(bindings.handle(&mut store, event));
        let mut metered = Metered::new(guest, limits.cpu);
        let outcome = timeout(limits.wall, &mut metered).await;
        (outcome, metered.spent())
    };
    let wall = start.elapsed();

    let mut state = store.into_data();
    state.log_output(true).await;
    let ending = match outcome {
        Err(_elapsed) => Ending::WallLimit,
        Ok(Err(Spent)) => Ending::CpuLimit,
        Ok(Ok(Ok(Ok(())))) => Ending::Ok,
        Ok(Ok(Ok(Err(failure)))) => Ending::Failed(failure),
        Ok(Ok(Err(error))) => ending_of_error(&mut state, &error),
    };
    let usage = Usage { cpu, wall, memory_peak: state.limiter.memory_peak(), host_calls: state.host_calls };
    Run { host: state.host, ending, usage }
}

fn ending_of_error(state: &mut State, error: &wasmtime::Error) -> Ending {
    if let Some(stopped) = state.stopped.take() {
        return stopped;
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        // Permits equal slots, so this is a bug of ours; the event must not suffer for it.
        return Ending::HostFault { message: format!("bug in the host: {error:#}") };
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Ending::StackOverflow;
    }
    if state.limiter.refused_memory() {
        return Ending::MemoryLimit;
    }
    if state.limiter.refused_table() {
        return Ending::TableLimit;
    }
    Ending::Trap { message: trap_message(error, state.last_words().as_deref()) }
}
