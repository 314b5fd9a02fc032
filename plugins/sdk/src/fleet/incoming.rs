//! A message of the fleet taken apart: envelope and payload, whichever way it was sent. Unknown keys are ignored, and
//! a value is read as what its sender will have meant.

use serde_json::{Map, Value};

use super::{Cause, Timestamp, digest, lenient};
use crate::{Event, Failure, delivery};

/// The message can't be what its subject says, now or ever: not JSON, not an object, or without its identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message on {subject}: {reason}")]
pub struct Malformed {
    pub subject: String,
    pub reason: String,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::reject(malformed.to_string())
    }
}

/// What surrounds the payload of an enveloped message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    pub event_type: String,
    pub idempotency_key: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub producer: Option<String>,
}

/// A message, enveloped or bare.
#[derive(Debug, Clone)]
pub struct Incoming {
    event_id: String,
    subject: String,
    arrival: Timestamp,
    envelope: Option<Envelope>,
    /// The envelope's own time.
    sent: Option<Value>,
    payload: Value,
}

impl Incoming {
    /// A message is enveloped if `payload` is an object and `event_type` plus one of `idempotency_key`,
    /// `correlation_id` and `producer` exist; otherwise all of it is the payload.
    pub fn read(event: &Event) -> Result<Self, Malformed> {
        let malformed = |reason: String| Malformed { subject: event.subject.clone(), reason };
        let body: Value =
            serde_json::from_slice(&event.data).map_err(|error| malformed(format!("not JSON: {error}")))?;
        let Value::Object(mut body) = body else {
            return Err(malformed("not a JSON object".into()));
        };
        let envelope = envelope(&body);
        let sent = envelope.as_ref().and_then(|_| body.get("timestamp").cloned());
        let payload = match &envelope {
            Some(_) => body.remove("payload").unwrap_or_default(),
            None => Value::Object(body),
        };
        Ok(Self {
            event_id: event.id.clone(),
            subject: event.subject.clone(),
            arrival: Timestamp::from_nanos(event.timestamp),
            envelope,
            sent,
            payload,
        })
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// Always an object.
    pub fn payload(&self) -> &Value {
        &self.payload
    }

    /// When the stream stored the message.
    pub fn arrival(&self) -> Timestamp {
        self.arrival
    }

    /// The value at a path of keys with dots between, unless it is `null`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        lenient::at(&self.payload, path)
    }

    /// The first of these paths that holds a text which is more than white space.
    pub fn text(&self, paths: &[&str]) -> Option<String> {
        paths.iter().find_map(|path| self.at(path).and_then(lenient::text))
    }

    /// As [`Incoming::text`], for what identifies the message.
    pub fn required(&self, paths: &[&str]) -> Result<String, Malformed> {
        self.text(paths).ok_or_else(|| Malformed {
            subject: self.subject.clone(),
            reason: format!("it has no {}", paths.first().copied().unwrap_or_default()),
        })
    }

    /// An error unless the event's order key, if it has one, is this id. Where they differ (by white space, or because a
    /// message has one id at the top and another in its payload) the state at hand is not that id's.
    pub fn keyed_by(&self, id: &str) -> Result<(), Malformed> {
        match delivery::order_key() {
            Some(key) if key != id => Err(Malformed {
                subject: self.subject.clone(),
                reason: format!("its order key is {key:?}, but it is about {id:?}"),
            }),
            _ => Ok(()),
        }
    }

    pub fn int(&self, path: &str) -> Option<i64> {
        self.at(path).and_then(lenient::int)
    }

    pub fn list(&self, path: &str) -> Option<Vec<String>> {
        self.at(path).and_then(lenient::list)
    }

    /// The time at a path; without one the envelope's, or else when the message arrived. So too, with a warning, if the
    /// time can't be read.
    pub fn time(&self, path: &str) -> Timestamp {
        let Some(value) = self.at(path).or(self.sent.as_ref().filter(|sent| !sent.is_null())) else {
            return self.arrival;
        };
        Timestamp::read(value).unwrap_or_else(|| {
            crate::warn!("{path} is not a time, taking the message's arrival for it"; value = value);
            self.arrival
        })
    }

    /// What makes this message the same as another: subject, envelope's key if any, and payload.
    pub fn digest(&self) -> String {
        let key = self.envelope.as_ref().and_then(|envelope| envelope.idempotency_key.as_deref());
        let all =
            Value::from(vec![Value::from(self.subject.as_str()), Value::from(key), self.payload.clone()]);
        digest::hex(&digest::canonical(&all))
    }

    /// This message as the cause of others.
    pub fn cause(&self) -> Cause {
        let envelope = self.envelope.as_ref();
        Cause {
            correlation_id: envelope
                .and_then(|envelope| envelope.correlation_id.clone())
                .or_else(|| self.text(&["correlation_id"])),
            key: envelope
                .and_then(|envelope| envelope.idempotency_key.clone())
                .or_else(|| self.text(&["idempotency_key"])),
            event_id: self.event_id.clone(),
        }
    }
}

fn envelope(body: &Map<String, Value>) -> Option<Envelope> {
    let text = |key: &str| body.get(key).and_then(lenient::text);
    let envelope = Envelope {
        event_type: text("event_type")?,
        idempotency_key: text("idempotency_key"),
        correlation_id: text("correlation_id"),
        causation_id: text("causation_id"),
        producer: text("producer"),
    };
    let identified =
        ["idempotency_key", "correlation_id", "producer"].iter().any(|key| body.contains_key(*key));
    (identified && body.get("payload").is_some_and(Value::is_object)).then_some(envelope)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::event;

    fn read(data: Value) -> Incoming {
        Incoming::read(&event("planning.plan.approved", data)).unwrap()
    }

    #[test]
    fn contract_2_1_envelope_bare_and_enveloped_messages_read_alike() {
        let bare = read(json!({"plan_id": "p", "correlation_id": "c"}));
        let enveloped = read(json!({
            "event_type": "planning.plan.approved", "correlation_id": "c", "idempotency_key": "k",
            "payload": {"plan_id": "p"}, "plan_id": "of the mirror",
        }));
        assert!(bare.envelope().is_none());
        assert_eq!(bare.text(&["plan_id"]).as_deref(), Some("p"));
        assert_eq!(enveloped.text(&["plan_id"]).as_deref(), Some("p"));
        assert_eq!(bare.cause().correlation_id, enveloped.cause().correlation_id);
        assert_eq!(enveloped.cause().key.as_deref(), Some("k"));
    }

    #[test]
    fn contract_2_1_envelope_a_payload_without_its_marks_is_bare() {
        assert!(read(json!({"payload": {"plan_id": "p"}, "event_type": "x"})).envelope().is_none());
        assert!(read(json!({"payload": "p", "event_type": "x", "producer": "y"})).envelope().is_none());
        assert!(read(json!({"payload": {}, "producer": "y"})).envelope().is_none());
        assert!(read(json!({"payload": {}, "event_type": "x", "producer": "y"})).envelope().is_some());
    }

    #[test]
    fn contract_2_1_consuming_what_is_no_object_is_malformed() {
        for data in ["", "plan", "[]", "\"p\"", "{\"plan_id\":"] {
            let error = Incoming::read(&event("planning.plan.approved", data)).unwrap_err();
            assert!(matches!(Failure::from(error), Failure::Reject(_)), "{data:?}");
        }
    }

    #[test]
    fn contract_2_1_dedupe_messages_are_equal_by_subject_key_and_payload() {
        let envelope = |key: &str, payload: Value| {
            read(json!({"event_type": "x", "idempotency_key": key, "timestamp": "any", "payload": payload}))
        };
        let one = envelope("k", json!({"a": 1, "b": 2}));
        assert_eq!(one.digest(), envelope("k", json!({"b": 2, "a": 1})).digest());
        assert_ne!(one.digest(), envelope("k", json!({"a": 1, "b": 3})).digest());
        assert_ne!(one.digest(), envelope("other", json!({"a": 1, "b": 2})).digest());
        assert_ne!(one.digest(), read(json!({"a": 1, "b": 2})).digest());
    }

    #[test]
    fn contract_2_1_times_one_that_is_missing_or_nonsense_is_the_arrival() {
        let message = read(json!({"timestamp": "soon", "ok": 0}));
        assert_eq!(message.time("timestamp"), message.arrival());
        assert_eq!(message.time("missing"), message.arrival());
        assert_eq!(message.time("ok").unix_seconds(), 0);
        let enveloped = read(json!({"event_type": "x", "producer": "y", "timestamp": 5, "payload": {}}));
        assert_eq!(enveloped.time("timestamp").unix_seconds(), 5);
    }

    #[test]
    fn contract_2_1_times_what_cannot_be_read_is_warned_of_and_what_is_missing_is_not() {
        let handle = |event: Event| {
            let message = Incoming::read(&event)?;
            assert_eq!(message.time("timestamp"), message.arrival());
            Ok(())
        };
        for (data, warnings) in [(json!({"timestamp": "soon"}), 1), (json!({}), 0)] {
            let run = crate::testing::Host::new().run(handle, event("planning.plan.approved", data));
            assert_eq!((run.result.clone(), run.logged(crate::log::Level::Warn).len()), (Ok(()), warnings));
        }
    }
}
