//! The end of an event: handed back or done, logged, counted and told. The only place that settles a delivery; what was
//! committed has been acked by the bus, as the last step of its commit.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cofferdam_bus::Delivery;

use super::{
    Dispatch,
    outcome::{Outcome, Policy},
};
use crate::observe::advisory;

/// An event that came to its end, or goes back to the stream.
#[derive(Debug, Clone)]
pub struct Finished {
    pub event: String,
    pub subject: String,
    pub plugin: String,
    pub order_key: Option<String>,
    pub attempt: u32,
    pub took: Duration,
    pub outcome: Outcome,
}

/// Attempts that came to an outcome on this host: a delivery that ended with the host, or was handed back unrun, is
/// none.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<String, (u32, Instant)>>);

/// Another host may have finished the event; what is older than this is forgotten.
const KEEP: Duration = Duration::from_secs(2 * 3600);
/// Forgetting is looked after once so many are kept.
const MANY: usize = 10_000;

impl Attempts {
    /// The number of the attempt that begins now, from 1.
    pub(super) fn of(&self, event: &str) -> u32 {
        self.lock().get(event).map_or(1, |(failed, _)| failed + 1)
    }

    fn failed(&self, event: &str, attempt: u32) {
        let mut attempts = self.lock();
        if attempts.len() >= MANY {
            attempts.retain(|_, (_, at)| at.elapsed() < KEEP);
        }
        attempts.insert(event.to_owned(), (attempt, Instant::now()));
    }

    fn over(&self, event: &str) {
        self.lock().remove(event);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn settle(
    dispatch: &Dispatch,
    delivery: &Delivery,
    finished: Finished,
    attempts: &Attempts,
    policy: &Policy,
) {
    match &finished.outcome {
        Outcome::Failure { again: Some(pause), .. } => {
            attempts.failed(&finished.event, finished.attempt);
            hand_back(delivery, Some(*pause)).await;
        }
        // The bus was the trouble: not at once, and no attempt used up.
        Outcome::Bus(_) => hand_back(delivery, Some(policy.ack_wait / 10)).await,
        Outcome::Done | Outcome::Duplicate | Outcome::Failure { again: None, .. } => {
            attempts.over(&finished.event)
        }
    }
    log(&finished);
    let fault = finished.outcome.fault().map_or("", super::Fault::name);
    let metrics = &dispatch.services.metrics;
    metrics.events.with_label_values(&[finished.plugin.as_str(), finished.outcome.name(), fault]).inc();
    metrics.seconds.with_label_values(&[finished.plugin.as_str()]).observe(finished.took.as_secs_f64());
    if dispatch.advisories {
        advisory::tell(&dispatch.services.bus, &finished).await;
    }
}

/// Gives an event back unrun, or for another try.
pub(crate) async fn hand_back(delivery: &Delivery, pause: Option<Duration>) {
    if let Err(error) = delivery.nak(pause).await {
        tracing::warn!(
            event = delivery.id(),
            "can't be handed back ({error}); it comes again after the ack wait"
        );
    }
}

fn log(finished: &Finished) {
    let (event, subject, plugin) = (&finished.event, &finished.subject, &finished.plugin);
    let (attempt, ms) = (finished.attempt, finished.took.as_millis() as u64);
    let order_key = finished.order_key.as_deref().unwrap_or_default();
    let outcome = finished.outcome.name();
    match &finished.outcome {
        Outcome::Done => tracing::info!(plugin, subject, event, order_key, attempt, ms, "done"),
        Outcome::Duplicate => tracing::debug!(plugin, subject, event, order_key, "had been committed before"),
        Outcome::Failure { fault, reason, again: Some(pause), .. } => {
            let (fault, pause_ms) = (fault.name(), pause.as_millis() as u64);
            tracing::warn!(
                plugin,
                subject,
                event,
                order_key,
                attempt,
                ms,
                outcome,
                fault,
                pause_ms,
                "will be tried again: {reason}"
            );
        }
        Outcome::Failure { fault, reason, again: None, .. } => {
            let fault = fault.name();
            tracing::error!(
                plugin,
                subject,
                event,
                order_key,
                attempt,
                ms,
                outcome,
                fault,
                "dead letter: {reason}"
            );
        }
        Outcome::Bus(reason) => {
            tracing::warn!(plugin, subject, event, order_key, attempt, ms, "handed back: {reason}");
        }
    }
}
