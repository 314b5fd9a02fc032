//! The fleet's events as JSON: the envelope around a payload, written and read. Which events there are is said where
//! they arise.

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::store::now;

/// How events are written. Old readers look for the payload's keys at the top level, new ones want the envelope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// The envelope plus all keys of the payload at the top level, for both kinds of reader.
    #[default]
    Mirror,
    /// The envelope alone.
    Envelope,
    /// The payload alone.
    Bare,
}

/// An event to send.
pub(crate) struct Event<'a> {
    /// Also its subject.
    pub(crate) event_type: &'a str,
    pub(crate) producer: &'a str,
    /// The id of what it is about.
    pub(crate) entity: &'a str,
    /// What happened to the entity, with a counter where it can happen again.
    pub(crate) operation: &'a str,
    pub(crate) correlation_id: &'a str,
    /// The idempotency key of the event that caused this one.
    pub(crate) causation_id: Option<&'a str>,
    pub(crate) payload: Map<String, Value>,
}

impl Style {
    /// The event as it goes out. The payload gets the envelope's timestamp.
    pub(crate) fn write(self, event: Event<'_>) -> Value {
        let timestamp = now();
        let mut payload = event.payload;
        payload.insert("timestamp".to_owned(), json!(timestamp));
        if self == Style::Bare {
            return Value::Object(payload);
        }
        let mut top = if self == Style::Mirror { payload.clone() } else { Map::new() };
        let key = hex(&Sha256::digest(format!("{}:{}:{}", event.event_type, event.entity, event.operation)));
        for (name, value) in [
            ("event_type", json!(event.event_type)),
            ("idempotency_key", json!(key)),
            ("correlation_id", json!(event.correlation_id)),
            ("timestamp", json!(timestamp)),
            ("producer", json!(event.producer)),
            ("payload", Value::Object(payload)),
        ] {
            top.insert(name.to_owned(), value);
        }
        if let Some(causation_id) = event.causation_id {
            top.insert("causation_id".to_owned(), json!(causation_id));
        }
        Value::Object(top)
    }
}

/// An event that came in, enveloped or bare.
#[derive(Debug, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) payload: Map<String, Value>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

impl Incoming {
    /// Reads either kind. The error is for the log.
    pub(crate) fn read(data: &[u8]) -> Result<Incoming, String> {
        let top: Value = serde_json::from_slice(data).map_err(|error| format!("not JSON: {error}"))?;
        let Value::Object(mut top) = top else { return Err("not a JSON object".to_owned()) };
        let text = |name: &str| top.get(name).and_then(Value::as_str).map(str::to_owned);
        let (idempotency_key, correlation_id) = (text("idempotency_key"), text("correlation_id"));
        let named = idempotency_key.is_some() || correlation_id.is_some() || text("producer").is_some();
        let enveloped = top.contains_key("event_type") && named;
        let payload = match top.remove("payload") {
            Some(Value::Object(payload)) if enveloped => payload,
            Some(other) => {
                top.insert("payload".to_owned(), other);
                top
            }
            None => top,
        };
        Ok(Incoming { payload, idempotency_key, correlation_id })
    }

    /// A non-empty string of the payload.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.payload.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event<'static> {
        let Value::Object(payload) = json!({"plan_id": "p", "producer": "not this one"}) else { panic!() };
        Event {
            event_type: "planning.plan.approved",
            producer: "planning-service",
            entity: "p",
            operation: "approved:1",
            correlation_id: "c",
            causation_id: None,
            payload,
        }
    }

    #[test]
    fn a_mirrored_event_serves_both_kinds_of_reader() {
        let written = Style::Mirror.write(event());
        assert_eq!(written["plan_id"], "p");
        assert_eq!(written["payload"]["plan_id"], "p");
        assert_eq!(written["producer"], "planning-service", "the envelope wins");
        assert_eq!(written["payload"]["producer"], "not this one");
        assert_eq!(written["timestamp"], written["payload"]["timestamp"]);
        // printf 'planning.plan.approved:p:approved:1' | sha256sum
        assert_eq!(
            written["idempotency_key"],
            "a924df69bdc8d62d0ffc6b3d3563135569ca1e3bef7b0f774a4f640ffaddd0e2"
        );
    }

    #[test]
    fn every_style_reads_back_to_the_same_payload() {
        for style in [Style::Mirror, Style::Envelope, Style::Bare] {
            let read = Incoming::read(style.write(event()).to_string().as_bytes()).unwrap();
            assert_eq!(read.text("plan_id"), Some("p"), "{style:?}");
        }
    }

    #[test]
    fn a_payload_without_envelope_keys_is_data() {
        let read = Incoming::read(br#"{"plan_id": "p", "payload": {"plan_id": "other"}}"#).unwrap();
        assert_eq!(read.text("plan_id"), Some("p"));
    }

    #[test]
    fn what_is_no_json_object_is_refused_with_the_reason() {
        assert!(Incoming::read(b"{").unwrap_err().contains("not JSON"));
        assert!(Incoming::read(b"[]").unwrap_err().contains("object"));
    }
}
