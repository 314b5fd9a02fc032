//! What a guest can reach, one file per capability. Everything here is buffered or asked of others; nothing acks,
//! and nothing becomes visible before the commit.

mod clock;
mod config;
mod executor;
mod log;
mod metrics;
mod publish;
mod rpc;
mod state;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use cofferdam_bus::{Bus, Change, Message};
use cofferdam_sandbox::{Answer, Call, Host};
pub use rpc::{Caller, Door, Outgoing, Upstreams, Within};
pub use state::State;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ExecutorConfig},
    dispatch::Held,
    executor::Queues,
    fault::Fault,
    grants::{Denial, Kind},
    observe::{
        metrics::{Metrics, Sample},
        text,
        trace::TraceContext,
    },
    plugins::Plugin,
};

/// What capabilities share on one host.
pub struct Services {
    pub bus: Arc<dyn Bus>,
    pub upstreams: Upstreams,
    pub executor: Option<ExecutorConfig>,
    /// Where jobs are put.
    pub queues: Queues,
    pub metrics: Arc<Metrics>,
    /// The host takes no more events and works no more jobs.
    pub stop: CancellationToken,
}

impl Services {
    pub fn new(bus: Arc<dyn Bus>, upstreams: Upstreams, config: &Config, metrics: Arc<Metrics>) -> Self {
        let queues = Queues::new(bus.clone());
        let stop = CancellationToken::new();
        Self { bus, upstreams, executor: config.executor.clone(), queues, metrics, stop }
    }
}

/// The event as capabilities need it.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// `<origin>.<sequence>`
    pub event_id: String,
    pub timestamp: u64,
    pub attempt: u32,
    pub last_attempt: bool,
    pub deadline: Instant,
    pub order_key: Option<String>,
    pub trace: TraceContext,
    pub held: Held,
    pub within: Within,
    /// Why effects are denied: it is a call of a method that only reads.
    pub only_reads: Option<String>,
}

/// One run of one event: what it asked for so far.
pub struct Run {
    services: Arc<Services>,
    plugin: Arc<Plugin>,
    occasion: Occasion,
    messages: Vec<Message>,
    message_bytes: usize,
    timers: publish::Timers,
    /// Messages that were emitted or scheduled, and timers that were cancelled.
    outgoing: usize,
    jobs: usize,
    cancelled_jobs: HashSet<String>,
    inferences: executor::Inferences,
    state: State,
    samples: Vec<Sample>,
    /// Why nothing is to come of this run, and another host may have the event.
    let_go: Option<String>,
    calls_made: HashMap<[u8; 32], u32>,
    clock_readings: u64,
    random_blocks: u64,
    log_bytes: usize,
    log_dropped: u64,
    /// What has been denied, and logged.
    denied: HashSet<(Kind, String)>,
    /// Of the last capability that failed, unless another worked since.
    blame: Option<Fault>,
}

/// Of what a guest asked for, in bytes: it goes into a log line.
const MAX_THING: usize = 512;
/// Of one event, that are logged.
const MAX_DENIALS: usize = 16;
/// What a commit needs for itself.
const COMMIT_OVERHEAD: usize = 4 << 10;

/// What a run leaves behind.
#[derive(Debug, Default)]
pub struct Residue {
    pub change: Change,
    pub samples: Vec<Sample>,
    /// Whose fault a failure would be, if a capability failed: it knows better than the guest.
    pub blame: Option<Fault>,
    /// What the host could not give it: nothing follows from how it ended.
    pub missing: Option<String>,
    /// It asked for so little that many such may wait for their commits at a time.
    pub light: bool,
}

/// Of what an event asks for, in bytes: all in flight may have as much without anybody noticing.
const LIGHT: usize = 64 << 10;

impl Run {
    pub fn new(services: Arc<Services>, plugin: Arc<Plugin>, occasion: Occasion, state: State) -> Self {
        Self {
            services,
            plugin,
            occasion,
            messages: Vec::new(),
            message_bytes: 0,
            timers: publish::Timers::default(),
            outgoing: 0,
            jobs: 0,
            cancelled_jobs: HashSet::new(),
            inferences: executor::Inferences::default(),
            state,
            samples: Vec::new(),
            let_go: None,
            calls_made: HashMap::new(),
            clock_readings: 0,
            random_blocks: 0,
            log_bytes: 0,
            log_dropped: 0,
            denied: HashSet::new(),
            blame: None,
        }
    }

    /// What the event's one commit still has room for, in bytes.
    fn room(&self) -> usize {
        let state = self.state.size();
        self.services.bus.max_commit().saturating_sub(COMMIT_OVERHEAD + state + self.message_bytes)
    }

    /// Effects of a call that only reads.
    fn may_have_effects(&self) -> Result<(), String> {
        self.occasion.only_reads.clone().map_or(Ok(()), Err)
    }

    fn remaining(&self) -> Duration {
        self.occasion.deadline.saturating_duration_since(Instant::now())
    }

    /// Checks a grant; a denial is logged, once for each thing of an event, with the line that would allow it.
    fn granted(&mut self, kind: Kind, thing: &str) -> Result<(), Denial> {
        let thing = &*text::excerpt(thing, MAX_THING);
        self.plugin.grants.check(kind, thing).inspect_err(|denial| {
            self.blame = Some(Fault::Operator);
            self.services.metrics.denials.with_label_values(&[self.plugin.name.as_str(), kind.name()]).inc();
            if self.denied.len() < MAX_DENIALS && self.denied.insert((kind, thing.to_owned())) {
                tracing::warn!(plugin = self.plugin.name, event = self.occasion.event_id, "denied: {denial}");
            }
        })
    }

    pub fn into_residue(self) -> Residue {
        if self.log_dropped > 0 {
            self.services
                .metrics
                .log_dropped
                .with_label_values(&[self.plugin.name.as_str()])
                .inc_by(self.log_dropped);
        }
        let size = self.message_bytes + self.state.size();
        let (writes, others, missing) = self.state.into_parts();
        Residue {
            light: size <= LIGHT && others.is_empty(),
            change: Change {
                writes,
                others,
                effects: self.messages,
                timers: self.timers.set,
                cancels: self.timers.cancelled,
                ..Change::default()
            },
            samples: self.samples,
            blame: self.blame,
            missing: self.let_go.or(missing),
        }
    }
}

#[async_trait]
impl Host for Run {
    async fn call(&mut self, call: Call) -> Answer {
        match call {
            Call::Attempt => Answer::Attempt(self.occasion.attempt),
            Call::LastAttempt => Answer::LastAttempt(self.occasion.last_attempt),
            Call::DeadlineMs => Answer::DeadlineMs(self.remaining().as_millis() as u64),
            Call::OrderKey => Answer::OrderKey(self.occasion.order_key.clone()),
            Call::Emit { subject, headers, data } => Answer::Emit(self.emit(subject, headers, data).await),
            Call::Schedule(scheduled) => Answer::Schedule(self.schedule(scheduled).await),
            Call::CancelTimer(id) => Answer::CancelTimer(self.cancel(&id)),
            Call::Rpc(request) => Answer::Rpc(self.rpc(request).await),
            Call::Submit(job) => Answer::Submit(self.submit(job).await),
            Call::JobStatus(id) => Answer::JobStatus(self.job_status(&id).await),
            Call::CancelJob(id) => Answer::CancelJob(self.cancel_job(&id)),
            Call::Infer(inferences) => Answer::Infer(self.infer(inferences).await),
            Call::Tokens(inference) => Answer::Tokens(self.tokens(inference).await),
            Call::NextToken(stream) => Answer::NextToken(self.next_token(stream).await),
            Call::FinishTokens(stream) => Answer::FinishTokens(self.finish_tokens(stream).await),
            Call::DropTokens(stream) => {
                self.drop_tokens(stream);
                Answer::Unit
            }
            Call::StateGet { cell, key } => Answer::StateGet(self.state_get(cell.as_deref(), &key).await),
            Call::StatePut { cell, key, value } => {
                Answer::StatePut(self.state_put(cell.as_deref(), key, value).await)
            }
            Call::StateDelete { cell, key } => {
                Answer::StateDelete(self.state_delete(cell.as_deref(), key).await)
            }
            Call::StateKeys { cell, prefix } => {
                Answer::StateKeys(self.state_keys(cell.as_deref(), &prefix).await)
            }
            Call::Config(key) => Answer::Config(self.config(&key)),
            Call::Log { level, message, fields } => {
                self.log(level, &message, &fields);
                Answer::Unit
            }
            Call::Count { name, labels, delta } => Answer::Count(self.count(name, labels, delta)),
            Call::Observe { name, labels, value } => Answer::Observe(self.observe(name, labels, value)),
            Call::SetGauge { name, labels, value } => Answer::SetGauge(self.set(name, labels, value)),
            Call::Now => Answer::Now(self.now()),
            Call::Random(len) => Answer::Random(self.random(len)),
        }
    }
}
