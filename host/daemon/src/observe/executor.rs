//! The numbers of the executor: what its worker counts, what its queues hold, and what its endpoints have done.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use cofferdam_bus::{Backlog, Bus, Error, Origin};
use cofferdam_inference::Statistics;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{endpoints::Endpoints, metrics::Metrics};
use crate::{
    clock::now,
    executor::job::{self, Queue},
};

/// Between two looks at the queues; a look is three or four requests for each.
const EVERY: Duration = Duration::from_secs(5);
/// Models take from tens of milliseconds to many minutes.
const SECONDS: [f64; 14] =
    [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// What the worker of the queues counts, by the names that people gave models.
pub struct Executor {
    /// Being worked, by model.
    pub running: IntGaugeVec,
    /// From a job's submission until it was begun, by model.
    pub waited: HistogramVec,
    /// From its beginning to its end, by model.
    pub worked: HistogramVec,
    /// By `error_type`.
    pub failed: IntCounterVec,
    /// By plugin and model, as they are paid for: what the cache answers costs none.
    pub tokens_in: IntCounterVec,
    pub tokens_out: IntCounterVec,
    /// Jobs that were begun by another worker before, or in an earlier life, by model: what was paid there is paid again.
    pub taken_over: IntCounterVec,
    /// Answers from the cache, and questions that it had no answer to, by model.
    pub cache_hits: IntCounterVec,
    pub cache_misses: IntCounterVec,
    /// Of this hour, by plugin that has a budget.
    pub budget_used: IntGaugeVec,
    pub budget: IntGaugeVec,
    queued: IntGaugeVec,
    oldest: GaugeVec,
    endpoints: Endpoints,
    /// That have series.
    models: Mutex<HashSet<String>>,
}

/// Models with series of their own. Plugins and clients may name any: they must not fill the memory.
const MAX_MODELS: usize = 200;

/// Where it is asked what endpoints have done.
pub type Asked = Box<dyn Fn() -> Statistics + Send + Sync>;

impl Executor {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let register = |metric: Box<dyn Collector>| registry.register(metric);
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = |name: &str, help: &str| -> Result<HistogramVec, prometheus::Error> {
            let metric =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.into()), &["model"])?;
            register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let oldest = GaugeVec::new(
            Opts::new(
                "cofferdam_jobs_oldest_seconds",
                "Age of the oldest job of a queue that has not ended.",
            ),
            &["plugin", "priority", "model"],
        )?;
        register(Box::new(oldest.clone()))?;
        let endpoints = Endpoints::new(Arc::new(OnceLock::new()))?;
        register(Box::new(endpoints.clone()))?;
        Ok(Self {
            running: gauge("cofferdam_jobs_running", "Jobs that this process works.", &["model"])?,
            waited: seconds("cofferdam_jobs_waited_seconds", "From a job's submission to its beginning.")?,
            worked: seconds("cofferdam_jobs_worked_seconds", "From a job's beginning to its end.")?,
            failed: counter("cofferdam_jobs_failed_total", "Jobs that failed, by error_type.", &["kind"])?,
            tokens_in: counter(
                "cofferdam_jobs_tokens_in_total",
                "Tokens of prompts of jobs that ended.",
                &["plugin", "model"],
            )?,
            tokens_out: counter(
                "cofferdam_jobs_tokens_out_total",
                "Tokens of answers of jobs that ended.",
                &["plugin", "model"],
            )?,
            taken_over: counter(
                "cofferdam_jobs_taken_over_total",
                "Jobs begun again after a worker that did not come to their end.",
                &["model"],
            )?,
            cache_hits: counter(
                "cofferdam_executor_cache_hits_total",
                "Jobs answered from the cache.",
                &["model"],
            )?,
            cache_misses: counter(
                "cofferdam_executor_cache_misses_total",
                "Jobs that the cache had no answer to.",
                &["model"],
            )?,
            budget_used: gauge(
                "cofferdam_executor_budget_used_tokens",
                "Tokens used in this hour by a plugin that has a budget, over all workers.",
                &["plugin"],
            )?,
            budget: gauge(
                "cofferdam_executor_budget_tokens",
                "Tokens that a plugin may use in an hour.",
                &["plugin"],
            )?,
            queued: gauge(
                "cofferdam_jobs_queued",
                "Jobs of a queue that have not ended.",
                &["plugin", "priority", "model"],
            )?,
            oldest,
            endpoints,
            models: Mutex::default(),
        })
    }

    /// The label of a model: its name, or `other` past the first [`MAX_MODELS`].
    pub fn model<'m>(&self, model: &'m str) -> &'m str {
        let mut known = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(model) || (known.len() < MAX_MODELS && known.insert(model.to_owned())) {
            model
        } else {
            "other"
        }
    }

    /// From now on endpoints are told of as `asked` says. The first one counts.
    pub fn follow(&self, asked: Asked) {
        self.endpoints.follow(asked);
    }

    fn set(&self, queue: &Queue, backlog: &Backlog, now: u64) {
        let labels = [queue.plugin.as_str(), job::word(queue.priority), self.model(&queue.model)];
        let old = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.timestamp));
        let queued = i64::try_from(backlog.unsettled()).unwrap_or(i64::MAX);
        self.queued.with_label_values(&labels).set(queued);
        self.oldest.with_label_values(&labels).set(Duration::from_nanos(old).as_secs_f64());
    }
}

/// The queues that this process works, as of now, with their durables.
pub type Queues = Box<dyn Fn() -> Vec<(Queue, Arc<Origin>)> + Send + Sync>;

/// Looks now and then how many jobs wait, until `stop`.
pub async fn watch(bus: Arc<dyn Bus>, metrics: Arc<Metrics>, queues: Queues, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for (queue, origin) in queues() {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = bus.backlog(&origin) => looked,
            };
            match looked {
                Ok(backlog) => metrics.executor.set(&queue, &backlog, now()),
                // Readiness tells it; the numbers stay as they were.
                Err(Error::Unavailable(reason)) => {
                    tracing::debug!(durable = origin.durable, reason, "no look at the queue");
                    break;
                }
                Err(error) => tracing::debug!(durable = origin.durable, "no look at the queue: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_past_a_number_are_counted_together() {
        let executor = Executor::register(&Registry::new()).unwrap();
        let names: Vec<String> = (0..=MAX_MODELS).map(|number| format!("m{number}")).collect();
        for name in &names[..MAX_MODELS] {
            assert_eq!(executor.model(name), name);
        }
        assert_eq!(executor.model(&names[MAX_MODELS]), "other");
        assert_eq!(executor.model(&names[0]), "m0");
    }
}
