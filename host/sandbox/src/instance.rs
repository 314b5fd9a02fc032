//! An instance and what it does: its store, one event's run in it after another, the limits and the end of each.

use std::pin::pin;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use wasmtime::{Engine, Store, Trap};

use crate::bindings::{Bindings, Instantiated, answer_name};
use crate::config::SandboxConfig;
use crate::ending::{Ending, Run, Usage, trap_message};
use crate::isolation::Slot;
use crate::limits::{Limiter, Limits};
use crate::meter::{Metered, Spent};
use crate::seam::{Answer, Call, Event, Host, LogLevel};
use crate::wasi::{Stream, Wasi};

/// Bytes of the guest's last words that a trap's message shows.
const LAST_WORDS: usize = 500;

/// What a store holds: the way from the guest to its host.
pub(crate) struct State {
    errand: Errand,
    /// What is left of the instance's limits: memory and tables stay with it.
    limiter: Limiter,
    /// Made when the guest first uses it: most never do.
    wasi: Option<Box<Wasi>>,
}

/// All that belongs to one event alone. It is replaced as a whole, so nothing of it can be forgotten and reach the next.
struct Errand {
    host: Box<dyn Host>,
    host_calls: u32,
    max_host_calls: u32,
    /// Why the run must end, whatever error the guest's call ends with.
    stopped: Option<Ending>,
    last_words: Option<String>,
    stderr: String,
    event: (String, u64),
    max_output: usize,
}

/// Whom an idle instance has. Nothing runs in it, so nobody asks.
struct Nobody;

#[async_trait]
impl Host for Nobody {
    async fn call(&mut self, _: Call) -> Answer {
        Answer::Unit
    }
}

impl Errand {
    fn new(host: Box<dyn Host>, event: &Event, limits: &Limits) -> Self {
        Self {
            host,
            host_calls: 0,
            max_host_calls: limits.host_calls,
            stopped: None,
            last_words: None,
            stderr: String::new(),
            event: (event.id.clone(), event.timestamp),
            max_output: limits.output,
        }
    }

    fn none() -> Self {
        Self {
            host: Box::new(Nobody),
            host_calls: 0,
            max_host_calls: 0,
            stopped: None,
            last_words: None,
            stderr: String::new(),
            event: (String::new(), 0),
            max_output: 0,
        }
    }

    fn last_words(&self) -> Option<String> {
        self.last_words.clone().or_else(|| (!self.stderr.is_empty()).then(|| shortened(&self.stderr)))
    }
}

impl State {
    /// For the next event.
    fn renew(&mut self, errand: Errand, limits: &Limits, ceiling: &SandboxConfig) {
        self.limiter.renew(limits, ceiling);
        if let Some(wasi) = &mut self.wasi {
            wasi.renew(&errand.event.0, errand.event.1, errand.max_output);
        }
        self.errand = errand;
    }

    /// The one way out of the guest: counts, and asks the host.
    pub(crate) async fn call(&mut self, call: Call) -> wasmtime::Result<Answer> {
        let errand = &mut self.errand;
        if errand.host_calls >= errand.max_host_calls {
            errand.stopped = Some(Ending::HostCallLimit);
            wasmtime::bail!("more than {} host calls", errand.max_host_calls);
        }
        errand.host_calls += 1;
        self.log_output(false).await;
        let errand = &mut self.errand;
        if let Call::Log { level: LogLevel::Error, message, .. } = &call {
            errand.last_words = Some(shortened(message));
        }
        Ok(errand.host.call(call).await)
    }

    /// An answer to another call than was made.
    pub(crate) fn wrong_answer(&mut self, expected: &str, answer: &Answer) -> wasmtime::Error {
        let message = format!(
            "bug in the host: a call that is answered by Answer::{expected} was answered by Answer::{}",
            answer_name(answer)
        );
        self.errand.stopped = Some(Ending::HostFault { message: message.clone() });
        wasmtime::Error::msg(message)
    }

    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        let Self { wasi, errand: Errand { event: (id, timestamp), max_output, .. }, .. } = self;
        wasi.get_or_insert_with(|| Box::new(Wasi::new(id, *timestamp, *max_output)))
    }

    /// Logs what the guest wrote to its standard output and error: whole lines, at the `end` all.
    async fn log_output(&mut self, end: bool) {
        let Some(wasi) = &mut self.wasi else { return };
        for (stream, message) in wasi.take_output(end) {
            let (level, stream) = match stream {
                Stream::Out => (LogLevel::Info, "stdout"),
                Stream::Err => {
                    let stderr = &mut self.errand.stderr;
                    if stderr.len() < LAST_WORDS {
                        stderr.push_str(if stderr.is_empty() { "" } else { " " });
                        stderr.push_str(&message);
                    }
                    (LogLevel::Warn, "stderr")
                }
            };
            let fields = vec![("stream".to_owned(), stream.to_owned())];
            // A line of the guest's output has no way to fail.
            self.errand.host.call(Call::Log { level, message, fields }).await;
        }
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

/// A store, and the guest in it once there is an event. Dropped in the midst of a run, it takes the guest with it.
pub(crate) struct Instance {
    store: Store<State>,
    guest: Option<Instantiated>,
    events: u32,
    /// Last, so that the place is free once the rest is gone.
    slot: Slot,
}

impl Instance {
    /// A fresh one, set for its first event.
    pub(crate) fn new(
        engine: &Engine,
        slot: Slot,
        host: Box<dyn Host>,
        event: &Event,
        limits: &Limits,
        ceiling: &SandboxConfig,
    ) -> Self {
        let state = State {
            errand: Errand::new(host, event, limits),
            limiter: Limiter::new(limits, ceiling),
            wasi: None,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_async_yield_and_update(1);
        set_fuel(&mut store, limits, ceiling);
        Self { store, guest: None, events: 0, slot }
    }

    /// Sets it for its next event.
    pub(crate) fn renew(
        &mut self,
        host: Box<dyn Host>,
        event: &Event,
        limits: &Limits,
        ceiling: &SandboxConfig,
    ) {
        self.store.data_mut().renew(Errand::new(host, event, limits), limits, ceiling);
        set_fuel(&mut self.store, limits, ceiling);
    }

    /// Does what it holds leave it within these limits?
    pub(crate) fn fits(&self, limits: &Limits) -> bool {
        self.store.data().limiter.fits(limits)
    }

    /// After a run that ended well: may it serve another event, where each serves so many? Not if it hit a limit, though
    /// its guest coped with that.
    pub(crate) fn may_go_on(&mut self, events: u32) -> bool {
        let State { limiter, wasi, .. } = self.store.data_mut();
        self.events < events && limiter.may_go_on() && wasi.as_mut().is_none_or(|wasi| wasi.is_tidy())
    }

    /// Its place, for another.
    pub(crate) fn into_slot(self) -> Slot {
        let Self { store, guest: _, events: _, slot } = self;
        drop(store);
        slot
    }

    /// Runs the event that it is set for.
    pub(crate) async fn run(&mut self, bindings: &Bindings, event: Event, limits: &Limits) -> Run {
        let start = Instant::now();
        let Self { store, guest, events, .. } = self;
        let fresh = *events == 0;
        *events += 1;
        store.set_epoch_deadline(1);

        // In a block, for the guest is stopped by dropping its future.
        let (outcome, cpu) = {
            let handling = pin!(async {
                let guest = match guest {
                    Some(guest) => guest,
                    None => {
                        let fresh = bindings.instantiate(store).await?;
                        store.data_mut().limiter.begin();
                        guest.insert(fresh)
                    }
                };
                guest.handle(store, event).await
            });
            let mut metered = Metered::new(handling, limits.cpu);
            let outcome = timeout(limits.wall, &mut metered).await;
            (outcome, metered.spent())
        };
        let wall = start.elapsed();

        let state = store.data_mut();
        state.log_output(true).await;
        let ending = match outcome {
            Err(_elapsed) => Ending::WallLimit,
            Ok(Err(Spent)) => Ending::CpuLimit,
            Ok(Ok(Ok(Ok(())))) => Ending::Ok,
            Ok(Ok(Ok(Err(failure)))) => Ending::Failed(failure),
            Ok(Ok(Err(error))) => ending_of_error(state, &error),
        };
        let memory_peak = state.limiter.memory_peak();
        let Errand { host, host_calls, .. } = std::mem::replace(&mut state.errand, Errand::none());
        Run { host, ending, usage: Usage { cpu, wall, memory_peak, host_calls, fresh } }
    }
}

/// What a guest hands over in one call is held on the host: no more than it could hold itself.
fn set_fuel(store: &mut Store<State>, limits: &Limits, ceiling: &SandboxConfig) {
    store.set_hostcall_fuel(limits.memory.min(ceiling.max_memory));
}

fn ending_of_error(state: &mut State, error: &wasmtime::Error) -> Ending {
    if let Some(stopped) = state.errand.stopped.take() {
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
    Ending::Trap { message: trap_message(error, state.errand.last_words().as_deref()) }
}
