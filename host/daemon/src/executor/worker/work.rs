//! One job of one agent, from its delivery to its end.

use std::{sync::atomic::Ordering, time::Duration};

use cofferdam_bus::{Delivery, Error, Message, Opened, Point};
use cofferdam_sandbox::JobPhase;
use tokio::time::Instant;

use super::{Taken, Worker, end::later};
use crate::{
    config,
    dispatch::hand_back,
    executor::{
        QueuedJob,
        backends::{Answered, Failed, Task, Worked, last_word},
        budget::Verdict,
        cancel::Attending,
        ending::{CANCELLED, Case},
        job::{self, Queue},
        report::Running,
        split,
        status::{self, Record},
    },
    observe::trace::TraceContext,
};

/// Where a job says 0.
const MAX_TRIES: u32 = 3;
/// So long a backend may take to notice that its work is not wanted any more.
const GRACE: Duration = Duration::from_millis(250);
/// A job that waits for another hour's tokens is looked at so often.
const BUDGET_LOOKS: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000_000;
/// By so much the clocks of a bus's servers may differ.
const CLOCKS: u64 = 5 * SECOND;

/// The times of a job, in nanoseconds since the epoch.
struct Times {
    submitted: u64,
    deadline: u64,
    started: u64,
}

impl Times {
    fn of(queued: &QueuedJob, delivery: &Delivery, started: u64) -> Self {
        let submitted = queued.parent.as_ref().map_or(delivery.stored.timestamp, |parent| parent.submitted);
        let seconds = job::patience(&queued.job).as_secs();
        Self { submitted, deadline: submitted.saturating_add(seconds.saturating_mul(SECOND)), started }
    }

    fn left(&self, now: u64) -> Duration {
        Duration::from_nanos(self.deadline.saturating_sub(now))
    }

    fn over(&self) -> Failed {
        let waited = Duration::from_nanos(self.started.saturating_sub(self.submitted)).as_secs_f64();
        let all = Duration::from_nanos(self.deadline - self.submitted).as_secs();
        let how = match self.started >= self.deadline {
            true => format!(
                "it waited {waited:.1} s in its queue; give it more (timeout_seconds), or its model more places"
            ),
            false => format!(
                "it waited {waited:.1} s in its queue, and was not answered in the rest; give it more (timeout_seconds), or ask for \
                 less (max_tokens)"
            ),
        };
        Failed::new("timeout", format!("the job's time of {all} s from its submission is over: {how}"))
    }
}

/// What becomes of a job.
enum Turn {
    Ends(Result<Answered, Failed>),
    Accepted {
        execution_id: String,
    },
    /// It is handed back, for so long.
    Waits {
        why: String,
        pause: Duration,
    },
}

impl Worker {
    /// Works a job, or, where nobody serves its model, only tells so. The tokens that were paid for.
    pub(super) async fn work(&self, taken: &Taken, served: bool) -> u64 {
        let delivery = &taken.delivery;
        let snapshot = match self.services.bus.open(delivery, &Point::Record).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => return 0,
            Err(error) => {
                later(delivery, &error.to_string()).await;
                return 0;
            }
        };
        let queued = match &taken.queued {
            Ok(queued) => queued,
            Err(error) => {
                tracing::error!(event = delivery.id(), "a job that can't be read was dropped: {error}");
                self.drop_quietly(delivery, snapshot, "unreadable").await;
                return 0;
            }
        };
        match self.has_ended_before(delivery, queued).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(
                    job = queued.id,
                    "it has ended before, and came again from a durable made anew"
                );
                self.drop_quietly(delivery, snapshot, "repeated").await;
                return 0;
            }
            Err(error) => {
                later(delivery, &error.to_string()).await;
                return 0;
            }
        }
        let times = Times::of(queued, delivery, self.now());
        let attempt = self.tries.of(&queued.id);
        let trace = TraceContext::of_event(&delivery.stored.message.headers, &queued.id, attempt).header();
        let model = self.model(queued);
        let record = Record {
            model: model.clone(),
            submitted: times.submitted,
            started: times.started,
            worker: self.name.clone(),
            ..Record::of(queued, JobPhase::Running)
        };
        let mut case = Case {
            queued,
            record,
            duration_ms: 0,
            envelope: &self.envelope,
            task_results: self.config.task_results,
        };
        if !matches!(self.config.backend, config::Backend::Fleet { .. }) {
            let parts = split::parts(queued, times.submitted, &self.config.model);
            if !parts.is_empty() {
                match split::put(&self.services.queues, &parts, &trace).await {
                    Ok(ids) => self.end(delivery, &snapshot, &case, case.split(ids), &trace).await,
                    Err(error) => later(delivery, &error.to_string()).await,
                }
                return 0;
            }
        }
        let attending = self.wishes.attend(queued);
        let (turn, also) =
            self.turn(delivery, queued, &model, &times, &attending, attempt, &trace, served).await;
        let ended = self.now();
        case.record.ended = ended;
        case.duration_ms = ended.saturating_sub(times.started) / 1_000_000;
        case.task_results = case.task_results && self.takes_results(queued).await;
        let (ending, used) = match turn {
            Turn::Ends(Ok(answered)) => {
                let (model, tokens, ms) = (&answered.model, answered.tokens_out, case.duration_ms);
                tracing::info!(job = queued.id, task_id = queued.job.task_id, model, tokens, ms, "answered");
                let used =
                    if answered.cached { 0 } else { answered.tokens_in.saturating_add(answered.tokens_out) };
                (case.answered(agent(queued), answered, also), used)
            }
            Turn::Ends(Err(failed)) => {
                let (kind, error, job, task_id) =
                    (failed.kind, &failed.error, &queued.id, &queued.job.task_id);
                match kind {
                    CANCELLED => tracing::info!(job, task_id, "cancelled: {error}"),
                    _ => tracing::error!(job, task_id, kind, "the job failed: {error}"),
                }
                let used = failed.tokens_in.saturating_add(failed.tokens_out);
                (case.failed(failed, also), used)
            }
            Turn::Accepted { execution_id } => (case.accepted(execution_id), 0),
            Turn::Waits { why, pause } => {
                tracing::warn!(event = delivery.id(), deliveries = delivery.count, "the job waits: {why}");
                hand_back(delivery, Some(pause).filter(|pause| !pause.is_zero())).await;
                return 0;
            }
        };
        self.budget.add(&queued.plugin, used, ended);
        self.end(delivery, &snapshot, &case, ending, &trace).await;
        used
    }

    /// Whether it needs no model: it can't be read, is to be split, or its end is known.
    pub(super) fn is_brief(&self, taken: &Taken) -> bool {
        let Ok(queued) = &taken.queued else { return true };
        let splits =
            queued.job.agents.len() > 1 && !matches!(self.config.backend, config::Backend::Fleet { .. });
        let now = self.now();
        splits || self.wishes.concern(queued) || Times::of(queued, &taken.delivery, now).left(now).is_zero()
    }

    /// A durable that is younger than the job may hand it out for the second time.
    pub(super) async fn has_ended_before(
        &self,
        delivery: &Delivery,
        queued: &QueuedJob,
    ) -> Result<bool, Error> {
        if delivery.origin.durable_created + CLOCKS <= delivery.stored.timestamp {
            return Ok(false);
        }
        match status::record(&self.services.bus, &queued.id).await {
            // There is one.
            Err(Error::Unreadable { .. }) => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    /// What is to become of the job, and what is stored beside that.
    #[allow(clippy::too_many_arguments, reason = "each is another thing, and none is passed on")]
    async fn turn(
        &self,
        delivery: &Delivery,
        queued: &QueuedJob,
        model: &str,
        times: &Times,
        attending: &Attending,
        attempt: u32,
        trace: &str,
        served: bool,
    ) -> (Turn, Vec<Message>) {
        let fails = |failed: Failed| (Turn::Ends(Err(failed)), Vec::new());
        if attending.token.is_cancelled() {
            return fails(cancelled());
        }
        if times.left(self.now()).is_zero() {
            return fails(times.over());
        }
        if !served {
            return fails(self.unknown(model));
        }
        match self.budget.verdict(&queued.plugin, self.now(), times.deadline) {
            Verdict::Fine => {}
            Verdict::In(pause) => {
                let why = format!("plugin {:?} has used up its tokens of this hour", queued.plugin);
                // It comes again sooner than that: somebody may cancel it meanwhile.
                return (Turn::Waits { why, pause: pause.min(BUDGET_LOOKS) }, Vec::new());
            }
            Verdict::Never { used, budget } => {
                let error = format!(
                    "plugin {:?} has used {used} of its {budget} tokens of this hour, and the job's time ends before the \
                     next; raise tokens-per-hour in [executor.plugins.{}], or give the job more time",
                    queued.plugin, queued.plugin
                );
                return fails(Failed::new("budget_exhausted", error));
            }
        }
        let prompt = match self.prompt(queued).await {
            Ok(Some(prompt)) => prompt,
            Ok(None) => {
                let error = "the job that it is a part of, and has its prompt from, is not kept any more; submit it again";
                return fails(Failed::new("gone", error));
            }
            Err(error) => return (Turn::Waits { why: error.to_string(), pause: super::PAUSE }, Vec::new()),
        };
        let _entered = self.book.enter(running(queued, model, times));
        let metrics = &self.services.metrics.executor;
        let waited = Duration::from_nanos(times.started.saturating_sub(times.submitted));
        let label = metrics.model(model);
        metrics.waited.with_label_values(&[label]).observe(waited.as_secs_f64());
        if self.others.worked(&queued.id) {
            metrics.taken_over.with_label_values(&[label]).inc();
        }
        let _running = Gauge::up(metrics.running.with_label_values(&[label]));
        let task = Task {
            queued,
            prompt: prompt.as_deref().unwrap_or(&queued.job.prompt),
            agent: agent(queued),
            model,
            attempt: attempt.max(delivery.count),
            deadline: Instant::now() + times.left(self.now()),
            trace,
            cancelled: attending.token.clone(),
        };
        let turn = self.ask(&task, times, attending, attempt).await;
        let also = match &turn {
            Turn::Ends(ended) => self.last_word(&task, ended.as_ref().ok()).await,
            Turn::Accepted { .. } | Turn::Waits { .. } => Vec::new(),
        };
        (turn, also)
    }

    /// Has the backend work it, as long as that is of use.
    async fn ask(&self, task: &Task<'_>, times: &Times, attending: &Attending, attempt: u32) -> Turn {
        let over = async {
            tokio::select! {
                () = attending.token.cancelled() => {}
                () = tokio::time::sleep_until(task.deadline) => {}
            }
            tokio::time::sleep(GRACE).await;
        };
        let worked = tokio::select! {
            worked = self.backend.work(task) => Some(worked),
            () = over => None,
        };
        let wished = attending.token.is_cancelled();
        match worked {
            Some(Worked::Answered(answered)) => Turn::Ends(Ok(answered)),
            Some(Worked::Accepted { execution_id }) => Turn::Accepted { execution_id },
            Some(Worked::Failed(failed)) if wished => Turn::Ends(Err(Failed {
                tokens_in: failed.tokens_in,
                tokens_out: failed.tokens_out,
                told: failed.told,
                ..cancelled()
            })),
            Some(Worked::Failed(failed)) => Turn::Ends(Err(failed)),
            Some(Worked::Later { .. }) | None if wished => Turn::Ends(Err(cancelled())),
            None => Turn::Ends(Err(times.over())),
            // It never came to be tried.
            Some(Worked::Later { .. }) if self.draining.load(Ordering::Acquire) => {
                Turn::Waits { why: "the worker stops".to_owned(), pause: Duration::ZERO }
            }
            Some(Worked::Later { error, kind, after }) => {
                self.again(task.queued, times, attempt, error, kind, after)
            }
        }
    }

    /// Another try, if there is one left, and time for it.
    fn again(
        &self,
        queued: &QueuedJob,
        times: &Times,
        attempt: u32,
        error: String,
        kind: &'static str,
        after: Option<Duration>,
    ) -> Turn {
        let tries = if queued.job.max_retries == 0 { MAX_TRIES } else { queued.job.max_retries };
        let pause = after.unwrap_or(super::PAUSE);
        if attempt >= tries {
            return Turn::Ends(Err(Failed::new(kind, error)));
        }
        if pause >= times.left(self.now()) {
            let error = format!("{error}; the job's time is over before it could be tried again");
            return Turn::Ends(Err(Failed::new(kind, error)));
        }
        self.tries.failed(&queued.id, attempt);
        Turn::Waits { why: format!("try {attempt} of {tries}: {error}"), pause }
    }

    /// Where it is with the job itself, nothing.
    async fn prompt(&self, queued: &QueuedJob) -> Result<Option<Option<String>>, Error> {
        let Some(parent) = &queued.parent else { return Ok(Some(None)) };
        let Some(place) = job::subject(&parent.id) else { return Ok(None) };
        let Some(stored) = self.services.bus.last(&place).await? else { return Ok(None) };
        let whole: Option<QueuedJob> = serde_json::from_slice(&stored.message.data).ok();
        Ok(whole.map(|whole| Some(whole.job.prompt)))
    }

    /// The name of the model, where the job or its agent has none the default one's.
    fn model(&self, queued: &QueuedJob) -> String {
        let model = Queue::of(&queued.plugin, &queued.job).model;
        if model.is_empty() { self.config.model.clone() } else { model }
    }

    fn unknown(&self, model: &str) -> Failed {
        let served: Vec<String> = self.others.models().into_iter().flatten().collect();
        let served = if served.is_empty() { "none".to_owned() } else { served.join(", ") };
        let error = format!(
            "no worker serves the model {model:?}; served are: {served}. Name one of these, or configure this one with \
             [executor.models]"
        );
        Failed::new("unknown_model", error)
    }

    /// The last of the tokens that were stored as they came.
    async fn last_word(&self, task: &Task<'_>, answered: Option<&Answered>) -> Vec<Message> {
        if !self.config.stream_tokens || answered.is_some_and(|answered| answered.told) {
            return Vec::new();
        }
        let last = last_word(task, answered);
        if self.stores(&last.subject).await { vec![last] } else { Vec::new() }
    }

    async fn takes_results(&self, queued: &QueuedJob) -> bool {
        let takes = self.stores(&format!("agent.results.{}", queued.job.task_id)).await;
        if !takes {
            let task_id = &queued.job.task_id;
            tracing::warn!(
                job = queued.id,
                task_id,
                "no stream takes agent.results of this task; the rest is told"
            );
        }
        takes
    }

    /// While the bus is out of reach, it waits: what is not known is not left out.
    async fn stores(&self, subject: &str) -> bool {
        loop {
            match self.services.bus.stores(subject).await {
                Ok(stores) => return stores,
                Err(Error::Unavailable(error)) => {
                    tracing::debug!(subject, "whether a stream takes it is asked again: {error}");
                    tokio::time::sleep(super::PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(subject, "no stream can take it: {error}");
                    return false;
                }
            }
        }
    }
}

fn cancelled() -> Failed {
    Failed::new(CANCELLED, "somebody asked for the job's end")
}

/// There is one; a job of several was split.
fn agent(queued: &QueuedJob) -> &cofferdam_sandbox::Agent {
    &queued.job.agents[0]
}

fn running(queued: &QueuedJob, model: &str, times: &Times) -> Running {
    let agent = agent(queued);
    Running {
        job: queued.id.clone(),
        parent: queued.parent.as_ref().map(|parent| parent.id.clone()),
        task_id: queued.job.task_id.clone(),
        agent: agent.id.clone(),
        role: if agent.role.is_empty() { queued.job.role.clone() } else { agent.role.clone() },
        model: model.to_owned(),
        plugin: queued.plugin.clone(),
        submitted: times.submitted,
        started: times.started,
    }
}

/// One more, until it is dropped.
struct Gauge(prometheus::IntGauge);

impl Gauge {
    fn up(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
