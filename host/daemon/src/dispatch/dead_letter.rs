//! Dead letters: events, and single effects, that were given up, with all that is needed to understand and redo them.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use cofferdam_bus::{Change, Message, Undeliverable};
use serde_json::{Value, json};

use super::{
    Work,
    again::{Times, now},
    outcome::{Failed, Outcome},
};
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
const MAX_HEADERS: usize = 64;

fn subject(plugin: &str) -> String {
    format!("cofferdam.dead.{plugin}")
}

/// The change whose only effect is the event's dead letter.
pub(super) fn change(work: &Work<'_>, outcome: &Outcome, size: Size) -> Change {
    let (plugin, event, past) = (&work.plugin, &work.decoded.event, &work.decoded.past);
    let given_up = now();
    // One that is given up unrun has not failed anew.
    let ran = !matches!(outcome, Outcome::Failure { how: Failed::Deadly, .. });
    let Times { first_seen, first_failed, last_failed } =
        if ran { work.times.failed(given_up) } else { work.times };
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
        "deliveries": past.deliveries.saturating_add(work.delivery.count),
        "order_key": work.decoded.order_key.as_deref().map(|key| text::excerpt(key, MAX_KEY)),
        "trace": trace.header(),
        "stream": past.stream,
        "durable": work.decoded.subscription.durable,
        "sequence": past.sequence,
        "life": past.life,
        "times": {
            "first_seen": time(first_seen),
            "first_failed": time(first_failed),
            "last_failed": time(last_failed),
            "given_up": time(given_up),
        },
        "event": {
            "id": event.id,
            "subject": event.subject,
            "headers": headers,
            "timestamp": event.timestamp,
            "data": data,
        },
    });
    Change {
        event: work.cause(),
        // Another end of the event than its effects, and once for each time that it is redriven.
        ids: Some(format!("{}.dead.{}", event.id, past.life)),
        effects: vec![message(&plugin.name, &body)],
        ..Change::default()
    }
}

/// As people and programs read it; nothing for what never was.
fn time(nanoseconds: u64) -> Option<String> {
    let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    (nanoseconds > 0).then(|| humantime::format_rfc3339_nanos(time).to_string())
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
            effect.headers.iter().map(|(n, v)| (n, text::excerpt(v, MAX_KEY))).take(MAX_HEADERS).collect();
        let cut = effect.headers.len() > MAX_HEADERS
            || headers.iter().zip(&effect.headers).any(|((_, shown), (_, whole))| shown != whole);
        let body = json!({
            "plugin": plugin,
            "outcome": "undeliverable",
            "fault": Fault::Operator.name(),
            "reason": reason,
            "effect": { "subject": effect.subject, "headers": headers, "headers_cut": cut, "data": data },
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
