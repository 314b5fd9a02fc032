//! An instance and what it does: its store, one task's run in it after another, the limits and the end of each.

use std::pin::pin;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, timeout};
use wasmtime::{Engine, Store, Trap};

use crate::bindings::{Bindings, Instantiated, answer_name};
use crate::config::SandboxConfig;
use crate::ending::{Ending, Run, Usage, trap_message};
use crate::isolation::Slot;
use crate::limits::{Limiter, Limits};
use crate::meter::{Metered, Spent};
use crate::seam::{Answer, Call, Event, Host, LogLevel, Request};
use crate::wasi::{Stream, Wasi};

/// Bytes of the guest's last words that a trap's message shows.
const LAST_WORDS: usize = 500;

/// What an instance is asked to do.
pub(crate) enum Task {
    Handle(Event),
    Serve(Request),
}

impl Task {
    fn id(&self) -> &str {
        match self {
            Self::Handle(event) => &event.id,
            Self::Serve(request) => &request.id,
        }
    }

    fn timestamp(&self) -> u64 {
        match self {
            Self::Handle(event) => event.timestamp,
            Self::Serve(request) => request.timestamp,
        }
    }
}

/// What a store holds: the way from the guest to its host.
pub(crate) struct State {
    errand: Errand,
    /// What is left of the instance's limits: memory and tables stay with it.
    limiter: Limiter,
    /// Made when the guest first uses it: most never do.
    wasi: Option<Box<Wasi>>,
    /// Handles that the guest holds, each of something that its errand's host keeps.
    handles: u32,
}

/// All that belongs to one task alone. It is replaced as a whole, so nothing of it can be forgotten and reach the next.
struct Errand {
    host: Box<dyn Host>,
    host_calls: u32,
    max_host_calls: u32,
    /// Why the run must end, whatever error the guest's call ends with.
    stopped: Option<Ending>,
    last_words: Option<String>,
    stderr: String,
    /// Its id and time.
    task: (String, u64),
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
    fn new(host: Box<dyn Host>, task: &Task, limits: &Limits) -> Self {
        Self {
            host,
            host_calls: 0,
            max_host_calls: limits.host_calls,
            stopped: None,
            last_words: None,
            stderr: String::new(),
            task: (task.id().to_owned(), task.timestamp()),
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
            task: (String::new(), 0),
            max_output: 0,
        }
    }

    fn last_words(&self) -> Option<String> {
        self.last_words.clone().or_else(|| (!self.stderr.is_empty()).then(|| shortened(&self.stderr)))
    }
}

impl State {
    /// For the next task.
    fn renew(&mut self, errand: Errand, limits: &Limits, ceiling: &SandboxConfig) {
        self.limiter.renew(limits, ceiling);
        if let Some(wasi) = &mut self.wasi {
            wasi.renew(&errand.task.0, errand.task.1, errand.max_output);
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

    pub(crate) fn hands_out_handle(&mut self) {
        self.handles += 1;
    }

    pub(crate) fn takes_back_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        let Self { wasi, errand: Errand { task: (id, timestamp), max_output, .. }, .. } = self;
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

/// A store, and the guest in it once there is a task. Dropped in the midst of a run, it takes the guest with it.
pub(crate) struct Instance {
    store: Store<State>,
    guest: Option<Instantiated>,
    tasks: u32,
    /// Last, so that the place is free once the rest is gone.
    slot: Slot,
}

impl Instance {
    /// A fresh one, set for its first task.
    pub(crate) fn new(
        engine: &Engine,
        slot: Slot,
        host: Box<dyn Host>,
        task: &Task,
        limits: &Limits,
        ceiling: &SandboxConfig,
    ) -> Self {
        let state = State {
            errand: Errand::new(host, task, limits),
            limiter: Limiter::new(limits, ceiling),
            wasi: None,
            handles: 0,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_async_yield_and_update(1);
        set_fuel(&mut store, limits, ceiling);
        Self { store, guest: None, tasks: 0, slot }
    }

    /// Sets it for its next task.
    pub(crate) fn renew(
        &mut self,
        host: Box<dyn Host>,
        task: &Task,
        limits: &Limits,
        ceiling: &SandboxConfig,
    ) {
        self.store.data_mut().renew(Errand::new(host, task, limits), limits, ceiling);
        set_fuel(&mut self.store, limits, ceiling);
    }

    /// Does what it holds leave it within these limits?
    pub(crate) fn fits(&self, limits: &Limits) -> bool {
        self.store.data().limiter.fits(limits)
    }

    /// After a run that ended well: may it have another, where each has so many? Not if it hit a limit, though its guest
    /// coped with that. Nor if it kept a handle, which would mean something else to the next task's host.
    pub(crate) fn may_go_on(&mut self, tasks: u32) -> bool {
        let State { limiter, wasi, handles, .. } = self.store.data_mut();
        let tidy = *handles == 0 && wasi.as_mut().is_none_or(|wasi| wasi.is_tidy());
        self.tasks < tasks && limiter.may_go_on() && tidy
    }

    /// Its place, for another.
    pub(crate) fn into_slot(self) -> Slot {
        let Self { store, guest: _, tasks: _, slot } = self;
        drop(store);
        slot
    }

    /// Runs the task that it is set for.
    pub(crate) async fn run(&mut self, bindings: &Bindings, task: Task, limits: &Limits) -> Run {
        let start = Instant::now();
        let Self { store, guest, tasks, .. } = self;
        let fresh = *tasks == 0;
        *tasks += 1;
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
                run(guest, store, task).await
            });
            let mut metered = Metered::new(handling, limits.cpu);
            let outcome = timeout(limits.wall, &mut metered).await;
            (outcome, metered.spent())
        };
        let wall = start.elapsed();

        let state = store.data_mut();
        state.log_output(true).await;
        let (ending, answer) = match outcome {
            Err(_elapsed) => (Ending::WallLimit, None),
            Ok(Err(Spent)) => (Ending::CpuLimit, None),
            Ok(Ok(Ok(word))) => word,
            Ok(Ok(Err(error))) => (ending_of_error(state, &error), None),
        };
        let memory_peak = state.limiter.memory_peak();
        let Errand { host, host_calls, .. } = std::mem::replace(&mut state.errand, Errand::none());
        Run { host, ending, answer, usage: Usage { cpu, wall, memory_peak, host_calls, fresh } }
    }
}

/// The guest's word, and its answer.
async fn run(
    guest: &Instantiated,
    store: &mut Store<State>,
    task: Task,
) -> wasmtime::Result<(Ending, Option<Bytes>)> {
    Ok(match task {
        Task::Handle(event) => match guest.handle(store, event).await? {
            Ok(()) => (Ending::Ok, None),
            Err(failure) => (Ending::Failed(failure), None),
        },
        Task::Serve(request) => match guest.serve(store, request).await? {
            Ok(answer) => (Ending::Ok, Some(answer)),
            Err(status) => (Ending::Refused(status), None),
        },
    })
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
        // Permits equal slots, so this is a bug of ours; the task must not suffer for it.
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
