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
    again::Times,
    inbox::Envelope,
    outcome::{Failed, Outcome},
};
use crate::{
    clock::now,
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
/// What the dead letter of an attempt may have beyond what brings that: a commit keeps twice this free of what the bus takes.
const SPARE: usize = 32 << 10;
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
        if let Some(plugin) = attempt_of(&effect.subject)
            && let Ok(envelope) = Envelope::read(&effect.data)
        {
            let whole = lost_attempt(plugin, &envelope, reason, Size::Whole);
            let most = MAX_EFFECT.max(effect.data.len() + SPARE);
            return if whole.data.len() <= most {
                whole
            } else {
                lost_attempt(plugin, &envelope, reason, Size::Least)
            };
        }
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

/// The plugin to whose inbox a subject brings another attempt.
fn attempt_of(subject: &str) -> Option<&str> {
    Some(subject.strip_prefix("cd.in.")?.split_once('.')?.0)
}

/// The dead letter of an event whose next attempt could not be stored: it is redriven as one that failed for good.
fn lost_attempt(plugin: &str, envelope: &Envelope, reason: &str, size: Size) -> Message {
    let (headers, data) = match size {
        Size::Whole => (json!(envelope.headers()), payload(&envelope.data)),
        Size::Least => (Value::Null, json!({ "omitted_bytes": envelope.data.len() })),
    };
    let reason = format!("its attempt {} could not be stored: {reason}", envelope.attempt);
    let body = json!({
        "plugin": plugin,
        "outcome": "undeliverable",
        "fault": Fault::Operator.name(),
        "reason": reason,
        "attempts": envelope.attempt - 1,
        "deliveries": envelope.deliveries,
        "stream": envelope.stream,
        "durable": envelope.durable,
        "sequence": envelope.sequence,
        "life": envelope.life,
        "times": {
            "first_seen": time(envelope.first_seen),
            "first_failed": time(envelope.first_failed),
            "last_failed": time(envelope.last_failed),
            "given_up": time(now()),
        },
        "event": {
            "id": envelope.root,
            "subject": envelope.subject,
            "headers": headers,
            "timestamp": envelope.timestamp,
            "data": data,
        },
    });
    message(plugin, &body)
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

#[cfg(test)]
mod tests {
    use cofferdam_bus::Stored;

    use super::*;
    use crate::letters::Letter;

    fn buried(effect: &Message) -> Letter {
        let message = undeliverable()(effect, "no room");
        Letter::read(Stored { message, sequence: 7, timestamp: 1 }).unwrap()
    }

    fn attempt(data: Vec<u8>) -> Message {
        let envelope = Envelope {
            root: "0a.9".into(),
            subject: "a.b".into(),
            data: data.into(),
            timestamp: 42,
            durable: "d".into(),
            attempt: 3,
            life: 2,
            stream: "S".into(),
            sequence: 9,
            ..Envelope::new(&[("X".into(), "1".into())])
        };
        envelope.message("p")
    }

    #[test]
    fn an_attempt_that_cannot_be_stored_is_a_dead_letter_of_its_event() {
        let letter = buried(&attempt(vec![0, 255]));
        let body = &letter.body;
        assert_eq!((body.plugin.as_str(), body.outcome.as_str(), body.attempts), ("p", "undeliverable", 2));
        assert_eq!((body.stream.as_str(), body.sequence, body.durable.as_str()), ("S", 9, "d"));
        assert_eq!(body.reason.as_deref(), Some("its attempt 3 could not be stored: no room"));
        assert!(body.effect.is_none());
        let event = body.event.as_ref().unwrap();
        assert_eq!((event.id.as_str(), event.subject.as_str(), event.timestamp), ("0a.9", "a.b", 42));
        assert_eq!(event.headers, Some(vec![("X".to_owned(), "1".to_owned())]));
        assert_eq!(event.data.bytes().unwrap(), Bytes::from_static(&[0, 255]));
        assert_eq!(letter.next_life(), 3);
    }

    #[test]
    fn one_that_is_too_large_says_where_its_event_is() {
        for (data, whole) in [(vec![b'x'; 900 << 10], true), (vec![0xff; 300 << 10], false)] {
            let letter = buried(&attempt(data.clone()));
            let event = letter.body.event.as_ref().unwrap();
            assert_eq!((event.data.bytes().is_some(), event.headers.is_some()), (whole, whole));
            assert_eq!(event.data.omitted_bytes, (!whole).then_some(data.len() as u64));
            assert_eq!((letter.body.stream.as_str(), letter.body.sequence), ("S", 9));
        }
    }

    #[test]
    fn any_other_effect_is_kept_as_it_is() {
        let plugin = ("Cofferdam-Plugin".to_owned(), "p".to_owned());
        for subject in ["a.b", "cd.j.1", "cd.in.p.0a.9.0.2"] {
            let effect = Message {
                subject: subject.into(),
                headers: vec![plugin.clone()],
                data: Bytes::from_static(b"{}"),
            };
            let letter = buried(&effect);
            assert_eq!((letter.body.plugin.as_str(), letter.subject()), ("p", subject));
            assert!(letter.body.event.is_none());
            assert_eq!(letter.payload().unwrap(), effect.data);
        }
    }
}
