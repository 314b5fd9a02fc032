//! Tells others of this worker: what it serves and works, and what plugins have used here.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::{Message, Publish};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Worker;
use crate::{
    clock::now,
    executor::report::{self, AT_LEAST, AT_MOST, Model, Report},
};

/// Of the last words, when the bus is slow.
const PATIENCE: Duration = Duration::from_secs(2);

impl Worker {
    /// Until the last job has ended, or was left.
    pub(super) async fn clerk(
        self: Arc<Self>,
        stop: CancellationToken,
        abort: CancellationToken,
        jobs: TaskTracker,
    ) {
        let mut every = tokio::time::interval(AT_MOST);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<Instant> = None;
        loop {
            tokio::select! {
                () = abort.cancelled() => break,
                // Closed once nothing new begins.
                () = jobs.wait() => break,
                _ = every.tick() => {}
            }
            self.tell_budget().await;
            let (report, changed) = self.report(stop.is_cancelled());
            if changed || told.is_none_or(|at| at.elapsed() >= AT_LEAST) {
                self.tell(report.message()).await;
                told = Some(Instant::now());
            }
        }
        let last = async {
            self.tell_budget().await;
            if let Err(error) = report::withdraw(&self.services.bus, &self.name).await {
                tracing::debug!("the last report stays: {error}");
            }
        };
        drop(tokio::time::timeout(PATIENCE, last).await);
    }

    fn report(&self, draining: bool) -> (Report, bool) {
        let (running, totals, changed) = self.book.read();
        let places = self.backend.models().unwrap_or_default().iter();
        let models = places.map(|places| Model {
            name: places.model.clone(),
            concurrency: places.concurrency,
            running: running.iter().filter(|job| job.model == places.model).count(),
        });
        let mut report = Report {
            worker: self.name.clone(),
            host: self.host.clone(),
            pid: std::process::id(),
            started: self.started,
            at: now(),
            draining,
            backend: self.config.backend.name().to_owned(),
            any: self.backend.models().is_none(),
            models: models.collect(),
            used_up: self.budget.used_up(self.now()),
            running,
            totals,
        };
        report.bound();
        (report, changed)
    }

    async fn tell_budget(&self) {
        if let Some(message) = self.budget.message(self.now())
            && !self.tell(message).await
        {
            self.budget.untold();
        }
        for (plugin, budget, used) in self.budget.all(self.now()) {
            let metrics = &self.services.metrics.executor;
            metrics.budget.with_label_values(&[plugin]).set(i64::try_from(budget).unwrap_or(i64::MAX));
            metrics.budget_used.with_label_values(&[plugin]).set(i64::try_from(used).unwrap_or(i64::MAX));
        }
    }

    async fn tell(&self, message: Message) -> bool {
        let subject = message.subject.clone();
        let told = self.services.bus.publish(message, Publish::default()).await;
        told.inspect_err(|error| tracing::debug!(subject, "not told: {error}")).is_ok()
    }
}
