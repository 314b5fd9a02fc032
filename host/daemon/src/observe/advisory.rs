//! Advisories: a word about every event to whoever listens now, on subjects that no stream stores.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::Bus;
use serde_json::json;

use crate::dispatch::Finished;

/// `cofferdam-advisory.<plugin>.<outcome>`
pub async fn tell(bus: &Arc<dyn Bus>, finished: &Finished<'_>) {
    let outcome = finished.outcome.name();
    let body = json!({
        "event": finished.event.id,
        "subject": finished.event.subject,
        "plugin": finished.plugin.name,
        "outcome": outcome,
        "fault": finished.outcome.fault().map(|f| f.name()),
        "attempt": finished.attempt,
        "ms": finished.took.as_secs_f64() * 1e3,
        "error": finished.outcome.reason(),
        "order_key": finished.order_key,
    });
    let subject = format!("cofferdam-advisory.{}.{outcome}", finished.plugin.name);
    bus.advise(&subject, Bytes::from(body.to_string())).await;
}
