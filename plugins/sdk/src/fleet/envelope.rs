//! Publishing the fleet's messages: the envelope, its key, and the mirror for readers that expect none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Timestamp, digest};
use crate::{config, publish, publish::EmitError, service::Call};

/// What a message goes back to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Carried over into every message that follows.
    pub correlation_id: Option<String>,
    /// The idempotency key of the causing message, if it had one.
    pub key: Option<String>,
    /// The causing event, which correlates what would have nothing else in common.
    pub event_id: String,
}

impl Cause {
    /// A call as the cause of events: correlated as its client says, else by itself.
    pub fn of_call(call: &Call) -> Self {
        let header = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| call.header(name)).map(str::trim);
            found.find(|text| !text.is_empty()).map(str::to_owned)
        };
        Self {
            correlation_id: header(&["x-correlation-id", "correlation-id"]),
            key: header(&["idempotency-key"]),
            event_id: call.id.clone(),
        }
    }

    /// This cause, correlated as `earlier` is: for answers, which come back with a correlation of the executor's own or
    /// none at all.
    #[must_use]
    pub fn continuing(self, earlier: &Self) -> Self {
        Self { correlation_id: Some(earlier.correlation()), ..self }
    }

    /// The correlation id, else the event itself.
    pub fn correlation(&self) -> String {
        self.correlation_id.clone().unwrap_or_else(|| self.event_id.clone())
    }
}

/// A message of the fleet that can be published.
pub trait Outgoing: Serialize {
    const SUBJECT: &'static str;
    /// The key that holds the time of the message; it is filled in unless the payload has it.
    const TIME: &'static str = "timestamp";

    /// The id of what the message is about: part of its idempotency key.
    fn entity(&self) -> &str;
}

/// Publishes the messages of one plugin.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    producer: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// The envelope, with the payload's keys beside it for readers of bare messages.
    #[default]
    Mirror,
    Envelope,
    Bare,
}

impl Writer {
    /// `Writer::new(env!("CARGO_PKG_NAME"))`.
    pub const fn new(producer: &'static str) -> Self {
        Self { producer }
    }

    /// Publishes `message`. `operation` tells it apart from other messages of this type about the same entity; so it
    /// needs a counter wherever the same thing can happen to an entity twice. Returns the message id.
    pub fn emit<M: Outgoing>(
        &self,
        cause: &Cause,
        message: &M,
        operation: &str,
    ) -> Result<String, EmitError> {
        publish::emit(M::SUBJECT, self.body(cause, message, operation)?)
    }

    /// As [`Writer::emit`], at `at` or soon after. Returns the timer's id, for [`publish::cancel`].
    pub fn schedule<M: Outgoing>(
        &self,
        at: Timestamp,
        cause: &Cause,
        message: &M,
        operation: &str,
    ) -> Result<String, EmitError> {
        publish::schedule(at.nanos(), M::SUBJECT, self.body(cause, message, operation)?)
    }

    fn body<M: Outgoing>(&self, cause: &Cause, message: &M, operation: &str) -> Result<String, EmitError> {
        let mode = config::get("wire.envelope").unwrap_or_else(|error| {
            crate::warn!("{error}; writing both shapes");
            None
        });
        let payload = payload(message)?;
        let body = match mode.unwrap_or_default() {
            Mode::Bare => payload,
            Mode::Envelope => self.envelope::<M>(cause, message.entity(), operation, payload),
            Mode::Mirror => {
                let mut mirror = payload.clone();
                mirror.extend(self.envelope::<M>(cause, message.entity(), operation, payload));
                mirror
            }
        };
        Ok(Value::Object(body).to_string())
    }

    fn envelope<M: Outgoing>(
        &self,
        cause: &Cause,
        entity: &str,
        operation: &str,
        payload: Map<String, Value>,
    ) -> Map<String, Value> {
        let key = digest::hex(&format!("{}:{entity}:{operation}", M::SUBJECT));
        let mut envelope = Map::new();
        envelope.insert("event_type".into(), M::SUBJECT.into());
        envelope.insert("idempotency_key".into(), key.into());
        envelope.insert("correlation_id".into(), cause.correlation().into());
        if let Some(key) = &cause.key {
            envelope.insert("causation_id".into(), key.as_str().into());
        }
        envelope.insert("timestamp".into(), payload.get(M::TIME).cloned().unwrap_or_default());
        envelope.insert("producer".into(), self.producer.into());
        envelope.insert("payload".into(), Value::Object(payload));
        envelope
    }
}

fn payload<M: Outgoing>(message: &M) -> Result<Map<String, Value>, EmitError> {
    match serde_json::to_value(message) {
        Ok(Value::Object(mut payload)) => {
            payload.entry(M::TIME).or_insert_with(|| Timestamp::now().to_string().into());
            Ok(payload)
        }
        Ok(_) => Err(EmitError::Limit(format!("the message for {} is no JSON object", M::SUBJECT))),
        Err(error) => {
            Err(EmitError::Limit(format!("the message for {} has no JSON form: {error}", M::SUBJECT)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Event, Failure,
        fleet::Incoming,
        testing::{Host, event},
    };

    #[derive(Serialize)]
    struct Sample {
        plan_id: &'static str,
        event_type: &'static str,
    }

    impl Outgoing for Sample {
        const SUBJECT: &'static str = "task.derivation.completed";
        const TIME: &'static str = "occurred_at";
        fn entity(&self) -> &str {
            self.plan_id
        }
    }

    fn handle(event: Event) -> Result<(), Failure> {
        let cause = Incoming::read(&event)?.cause();
        let sample = Sample { plan_id: "p", event_type: "payload's own" };
        Writer::new("sample").emit(&cause, &sample, "completed:1")?;
        Ok(())
    }

    fn written(mode: &str, cause: Value) -> Value {
        let mut host = Host::new().config("wire.envelope", mode);
        let run = host.run(handle, event("x", cause));
        assert_eq!(run.result, Ok(()));
        run.published[0].json()
    }

    #[test]
    fn contract_2_1_writing_the_mirror_holds_both_shapes_and_the_envelope_wins() {
        let cause = json!({"event_type": "x", "idempotency_key": "k", "correlation_id": "c", "payload": {}});
        let message = written("mirror", cause);
        assert_eq!(message["plan_id"], "p");
        assert_eq!(message["payload"]["plan_id"], "p");
        assert_eq!(message["event_type"], "task.derivation.completed");
        assert_eq!(message["payload"]["event_type"], "payload's own");
        assert_eq!(message["correlation_id"], "c");
        assert_eq!(message["causation_id"], "k");
        assert_eq!(message["producer"], "sample");
        assert_eq!(message["timestamp"], message["occurred_at"]);
        assert_eq!(message["idempotency_key"], digest::hex("task.derivation.completed:p:completed:1"));
        assert!(message["occurred_at"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn contract_2_1_writing_the_other_modes_write_one_shape() {
        let envelope = written("envelope", json!({"correlation_id": "c"}));
        assert_eq!(envelope.get("plan_id"), None);
        assert_eq!(envelope["payload"]["plan_id"], "p");
        assert_eq!(envelope["correlation_id"], "c");
        assert_eq!(envelope.get("causation_id"), None);
        let bare = written("bare", json!({}));
        assert_eq!(bare.get("payload"), None);
        assert_eq!(bare["event_type"], "payload's own");
        assert_eq!(written("nonsense", json!({}))["payload"]["plan_id"], "p");
    }

    #[test]
    fn contract_2_1_writing_an_uncorrelated_cause_correlates_by_its_event() {
        assert!(written("mirror", json!({}))["correlation_id"].as_str().unwrap().starts_with("test."));
    }

    #[test]
    fn contract_2_1_writing_an_answer_continues_the_correlation_of_its_record() {
        let record = Cause { correlation_id: Some("c".into()), ..Cause::default() };
        let answer = Cause { correlation_id: Some("the executor's".into()), ..Cause::default() };
        assert_eq!(answer.continuing(&record).correlation_id.as_deref(), Some("c"));
    }
}
