//! Dead letters: events, and single effects, that were given up, with all that is needed to understand and redo them.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Change, Message, Undeliverable};
use serde_json::{Value, json};

use super::{Work, outcome::Outcome};
use crate::{
    fault::Fault,
    observe::{text, trace::TraceContext},
};

/// How much of the event a dead letter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Whole,
    /// Without payload and headers: stream and sequence say where they are.
    Least,
}

/// Of an effect's payload; a dead letter that no stream takes would hold up its event for ever.
const MAX_EFFECT: usize = 256 << 10;
const MAX_KEY: usize = 512;

fn subject(plugin: &str) -> String {
    format!("cofferdam.dead.{plugin}")
}

/// The change whose only effect is the event's dead letter.
pub(super) fn change(work: &Work<'_>, outcome: &Outcome, size: Size) -> Change {
    let (plugin, delivery, event) = (&work.plugin, work.delivery, &work.decoded.event);
    let trace = TraceContext::of_event(&event.headers, &event.id, work.attempt);
    let (headers, data) = match size {
        Size::Whole => (json!(event.headers), payload(&event.data)),
        Size::Least => (Value::Null, json!({ "omitted_bytes": event.data.len() })),
    };
    let body = json!({
        "plugin": plugin.name,
        "version": plugin.version,
        "digest": plugin.digest,
        "outcome": outcome.name(),
        "fault": outcome.fault().map(Fault::name),
        "reason": outcome.reason(),
        "attempts": work.attempt,
        "deliveries": delivery.count,
        "order_key": work.decoded.order_key.as_deref().map(|key| text::excerpt(key, MAX_KEY)),
        "trace": trace.header(),
        "stream": delivery.origin.stream,
        "durable": delivery.origin.durable,
        "sequence": delivery.stored.sequence,
        "event": {
            "id": event.id,
            "subject": event.subject,
            "headers": headers,
            "timestamp": event.timestamp,
            "data": data,
        },
    });
    Change { effects: vec![message(&plugin.name, &body)], ..Change::default() }
}

/// For effects that their stream refuses after the commit.
pub fn undeliverable() -> Undeliverable {
    Arc::new(|effect, reason| {
        let plugin =
            effect.headers.iter().find(|(n, _)| n == "Cofferdam-Plugin").map_or("unknown", |(_, v)| v);
        let data = if effect.data.len() > MAX_EFFECT {
            json!({ "omitted_bytes": effect.data.len() })
        } else {
            payload(&effect.data)
        };
        let headers: Vec<_> =
            effect.headers.iter().map(|(n, v)| (n, text::excerpt(v, MAX_KEY))).take(64).collect();
        let body = json!({
            "plugin": plugin,
            "outcome": "undeliverable",
            "fault": Fault::Operator.name(),
            "reason": reason,
            "effect": { "subject": effect.subject, "headers": headers, "data": data },
        });
        message(plugin, &body)
    })
}

fn message(plugin: &str, body: &Value) -> Message {
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
