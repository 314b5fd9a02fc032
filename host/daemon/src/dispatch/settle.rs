//! The end of an event: handed back or done, logged, counted and told. The only place that settles a delivery; what was
//! committed has been acked by the bus, as the last step of its commit.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::Delivery;
use cofferdam_sandbox::Event;

use super::{
    Dispatch,
    again::Times,
    endings::Endings,
    grip::Held,
    outcome::{Failed, Outcome, Then},
};
use crate::{fault::Fault, observe::advisory, plugins::Plugin};

/// An event that came to its end, or goes back to the stream.
pub struct Finished<'a> {
    pub event: &'a Event,
    pub plugin: Arc<Plugin>,
    pub order_key: Option<&'a str>,
    pub attempt: u32,
    /// With the failure, if it is one.
    pub(super) times: Times,
    pub took: Duration,
    pub outcome: Outcome,
}

/// Ends a run. Where that ends the delivery, it is no longer in flight here: what comes back is a delivery of its own. `stays`:
/// what was to be handed back keeps its place, and is run again there.
pub(super) async fn settle(
    dispatch: &Dispatch,
    delivery: &Delivery,
    finished: Finished<'_>,
    held: &Held,
    endings: &Endings,
    stays: bool,
) {
    let id = delivery.id();
    match &finished.outcome {
        Outcome::Failure { then: Then::Back(pause), .. } => {
            endings.failed(id, finished.times);
            endings.handed_back(id, delivery.count);
            hand_back_if_ours(delivery, held, Some(*pause)).await;
        }
        Outcome::Failure { then: Then::Here(_), .. } => endings.failed(id, finished.times),
        Outcome::HandedBack(_) if stays => {}
        // Not at once: whatever is the trouble needs time.
        Outcome::HandedBack(_) => {
            endings.handed_back(id, delivery.count);
            hand_back_if_ours(delivery, held, Some(delivery.origin.ack_wait / 10)).await;
        }
        Outcome::Done
        | Outcome::Duplicate
        | Outcome::Failure { then: Then::Dead | Then::Inbox(_) | Then::Answer, .. } => endings.over(id),
    }
    log(&finished);
    let fault = finished.outcome.fault().map_or("", Fault::name);
    let meters = finished.plugin.meters(&dispatch.services.metrics);
    match &finished.outcome {
        Outcome::Done => meters.done.inc(),
        outcome => {
            let labels = [finished.plugin.name.as_str(), outcome.name(), fault];
            dispatch.services.metrics.events.with_label_values(&labels).inc();
        }
    }
    meters.seconds.observe(finished.took.as_secs_f64());
    if dispatch.advisories {
        advisory::tell(&dispatch.services.bus, &finished).await;
    }
}

/// Who has it by now is not to lose it by our word; if nobody has, it comes again after the ack wait.
pub(super) async fn hand_back_if_ours(delivery: &Delivery, held: &Held, pause: Option<Duration>) {
    if held.is_sure() {
        hand_back(delivery, pause).await;
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

fn log(finished: &Finished<'_>) {
    let (event, subject, plugin) = (&finished.event.id, &finished.event.subject, &finished.plugin.name);
    let (attempt, ms) = (finished.attempt, finished.took.as_millis() as u64);
    let order_key = finished.order_key.unwrap_or_default();
    let outcome = finished.outcome.name();
    match &finished.outcome {
        Outcome::Done => tracing::info!(plugin, subject, event, order_key, attempt, ms, "done"),
        Outcome::Duplicate => tracing::debug!(plugin, subject, event, order_key, "had been committed before"),
        Outcome::Failure { how: Failed::Status(code), reason, .. } => {
            tracing::info!(
                plugin,
                subject,
                event,
                order_key,
                attempt,
                ms,
                outcome,
                code,
                "answered: {reason}"
            );
        }
        Outcome::Failure { fault, reason, then: Then::Answer, .. } => {
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
                "answered: {reason}"
            );
        }
        Outcome::Failure { fault, reason, then, .. } if *then != Then::Dead => {
            let (fault, pause_ms) = (fault.name(), then.pause().unwrap_or_default().as_millis() as u64);
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
        Outcome::Failure { fault, reason, .. } => {
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
        Outcome::HandedBack(reason) => {
            tracing::warn!(plugin, subject, event, order_key, attempt, ms, "handed back: {reason}");
        }
    }
}
