//! Dead letters: events, and single effects, that were given up, with all that is needed to understand and redo them.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Change, Delivery, Message, Undeliverable};
use serde_json::{Value, json};

use super::{decode::Decoded, outcome::Outcome};
use crate::{observe::trace::TraceContext, plugins::Plugin};

/// NATS's default payload limit, less what the commit adds around it.
const MAX: usize = 896 << 10;

fn subject(plugin: &str) -> String {
    format!("cofferdam.dead.{plugin}")
}

/// The change whose only effect is the event's dead letter.
pub(super) fn change(
    plugin: &Arc<Plugin>,
    delivery: &Delivery,
    decoded: &Decoded,
    outcome: &Outcome,
    attempt: u32,
) -> Change {
    let event = &decoded.event;
    let trace = TraceContext::of_event(&event.headers, &event.id, attempt);
    let mut body = json!({
        "plugin": plugin.name,
        "version": plugin.version,
        "digest": plugin.digest,
        "outcome": outcome.name(),
        "fault": outcome.fault().map(super::Fault::name),
        "reason": outcome.reason(),
        "attempts": attempt,
        "deliveries": delivery.count,
        "order_key": decoded.order_key,
        "trace": trace.header(),
        "stream": delivery.origin.stream,
        "durable": delivery.origin.durable,
        "event": {
            "id": event.id,
            "subject": event.subject,
            "headers": event.headers,
            "timestamp": event.timestamp,
            "data": payload(&event.data),
        },
    });
    if body.to_string().len() > MAX {
        // It must be storable: an event that can't even become a dead letter would come again for ever.
        body["event"]["data"] =
            json!({ "omitted_bytes": event.data.len(), "sequence": delivery.stored.sequence });
        body["event"]["headers"] = json!([]);
    }
    Change { writes: Vec::new(), effects: vec![message(&plugin.name, body)] }
}

/// For effects that their stream refuses after the commit.
pub fn undeliverable() -> Undeliverable {
    Arc::new(|effect, reason| {
        let plugin =
            effect.headers.iter().find(|(n, _)| n == "Cofferdam-Plugin").map_or("unknown", |(_, v)| v);
        let body = json!({
            "plugin": plugin,
            "outcome": "undeliverable",
            "fault": super::Fault::Operator.name(),
            "reason": reason,
            "effect": {
                "subject": effect.subject,
                "headers": effect.headers,
                "data": payload(&effect.data),
            },
        });
        message(plugin, body)
    })
}

fn message(plugin: &str, body: Value) -> Message {
    Message {
        subject: subject(plugin),
        headers: vec![("Cofferdam-Plugin".into(), plugin.to_owned())],
        data: Bytes::from(body.to_string()),
    }
}

/// As text where it is text, else in base64, so that nothing is lost.
fn payload(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) => json!({ "text": text }),
        Err(_) => {
            json!({ "base64": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, data) })
        }
    }
}
