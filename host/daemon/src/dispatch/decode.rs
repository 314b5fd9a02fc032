//! From a delivery to an event: id, past, order key, commit point. Everything here follows from the message and the
//! subscription alone, so that every run, host and version agrees.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_bus::{Delivery, Point};
use cofferdam_sandbox::Event;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Comer, Route,
    again::{Past, Times},
    inbox::{Call, Envelope, EnvelopeError},
};
use crate::{
    config::{Class, KeyPlace, KeySource, Method, MethodKind, Subscription},
    observe::trace::hex,
    plugins::Plugin,
};

/// Longer keys than this are no names.
const MAX_KEY: usize = 512;
/// Of a cell's name, for the bus.
const MAX_CELL: usize = 1024;

pub(super) struct Decoded {
    /// As it was first delivered.
    pub(super) event: Event,
    pub(super) past: Past,
    pub(super) subscription: Arc<Subscription>,
    pub(super) order_key: Option<String>,
    pub(super) point: Point,
    /// It is a call: its event's id is the call's, its subject the method, its headers the metadata.
    pub(super) is_call: bool,
}

/// Why an event of an inbox is not run here. Another host may well be able to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Strange {
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    #[error(
        "it came by the durable {durable:?}, which no subscription of the plugin has here; it waits for a host where one has: \
         give the subscription to {subject:?} durable = {durable:?} in the plugin's manifest"
    )]
    Durable { durable: String, subject: String },
    #[error(
        "it is a call of {method:?}, which the plugin does not serve here as a method that writes; it waits for a host where it \
         does: list the method in the plugin's manifest, and grant it in the config under [plugins.{plugin}.grants]"
    )]
    Method { method: String, plugin: String },
}

impl Decoded {
    /// The cell, which is what events of one key share and take turns on.
    pub(super) fn turn(&self) -> Option<(String, String)> {
        match &self.point {
            Point::Cell { space, cell } => Some((space.clone(), cell.clone())),
            _ => None,
        }
    }

    pub(super) fn comer(&self) -> Comer {
        if self.is_call { Comer::Write } else { Comer::Event }
    }

    /// Where a failure commits: one needs a message that can be read again, which the class `publish` does not have.
    pub(super) fn failure_point(&self) -> &Point {
        match &self.point {
            Point::Publish => &Point::Record,
            point => point,
        }
    }
}

/// What a durable delivers, or what an inbox brings again.
pub(super) fn decode(delivery: &Delivery, route: &Route, plugin: &Plugin) -> Result<Decoded, Strange> {
    let Delivery { stored, origin, .. } = delivery;
    let Some(subscription) = route.subscription() else {
        return enveloped(&stored.message.data, plugin);
    };
    let message = &stored.message;
    let event = Event {
        id: delivery.id().to_owned(),
        subject: message.subject.clone(),
        headers: message.headers.clone(),
        data: message.data.clone(),
        timestamp: stored.timestamp,
    };
    let past = Past { stream: origin.stream.clone(), sequence: stored.sequence, ..Past::default() };
    Ok(decoded(event, past, subscription.clone(), &plugin.space))
}

fn enveloped(data: &Bytes, plugin: &Plugin) -> Result<Decoded, Strange> {
    let envelope = Envelope::read(data)?;
    if envelope.call.is_some() {
        return called(envelope, plugin);
    }
    let mut subscriptions = plugin.subscriptions.iter();
    let Some(subscription) = subscriptions.find(|s| s.durable == envelope.durable) else {
        return Err(Strange::Durable { durable: envelope.durable, subject: envelope.subject });
    };
    let event = Event {
        headers: envelope.headers(),
        id: envelope.root,
        subject: envelope.subject,
        data: envelope.data,
        timestamp: envelope.timestamp,
    };
    let past = Past {
        failed: envelope.attempt - 1,
        deliveries: envelope.deliveries,
        life: envelope.life,
        dead_letter: envelope.dead_letter,
        stream: envelope.stream,
        sequence: envelope.sequence,
        times: Times {
            first_seen: envelope.first_seen,
            first_failed: envelope.first_failed,
            last_failed: envelope.last_failed,
        },
    };
    Ok(decoded(event, past, Arc::new(subscription.clone()), &plugin.space))
}

fn decoded(event: Event, past: Past, subscription: Arc<Subscription>, space: &str) -> Decoded {
    let order_key = order_key(&subscription.order_key, &event.headers, &event.data);
    let point = match (subscription.class, &order_key) {
        (Class::Cell, Some(key)) => {
            Point::Cell { space: space.to_owned(), cell: cell(&subscription.cell, key) }
        }
        (Class::Publish, _) => Point::Publish,
        // Without a key there is no cell; the record commits the event all the same.
        (Class::Record | Class::Cell, _) => Point::Record,
    };
    Decoded { event, past, subscription, order_key, point, is_call: false }
}

/// A call that the plugin serves. What is not served here may be elsewhere, or again: to answer that would be to lose it.
fn called(envelope: Envelope, plugin: &Plugin) -> Result<Decoded, Strange> {
    let method = &envelope.subject;
    let serves = |m: &Arc<Method>| m.path == *method && m.kind == MethodKind::Write;
    if !plugin.methods.iter().any(serves) {
        return Err(Strange::Method { method: envelope.subject, plugin: plugin.name.clone() });
    }
    let Call { key, cell } = envelope.call.clone().unwrap_or_default();
    let point = match cell {
        Some(cell) => Point::Cell { space: plugin.space.clone(), cell },
        None => Point::Record,
    };
    let subscription = Arc::new(Subscription::of_calls(method));
    let event = Event {
        headers: envelope.headers(),
        id: envelope.root,
        subject: envelope.subject,
        data: envelope.data,
        timestamp: envelope.timestamp,
    };
    let past = Past { life: envelope.life, ..Past::default() };
    Ok(Decoded { event, past, subscription, order_key: key, point, is_call: true })
}

/// The name of a key's cell. A key too long for a name is known by its hash, and so is a name that is too long.
pub(crate) fn cell(template: &str, key: &str) -> String {
    let hashed = |text: &str| format!("sha256:{}", hex(&Sha256::digest(text)));
    let name = if key.len() <= MAX_KEY {
        template.replace("{key}", key)
    } else {
        template.replace("{key}", &hashed(key))
    };
    if name.len() <= MAX_CELL { name } else { hashed(&name) }
}

/// The first source that yields a non-empty string or a number.
fn order_key(sources: &[KeySource], headers: &[(String, String)], data: &[u8]) -> Option<String> {
    let json: Option<Value> = sources
        .iter()
        .any(|s| matches!(s.place, KeyPlace::Pointer(_)))
        .then(|| serde_json::from_slice(data).ok())
        .flatten();
    sources.iter().find_map(|source| {
        let found = match &source.place {
            KeyPlace::Header(name) => {
                headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            }
            KeyPlace::Pointer(pointer) => match json.as_ref()?.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            },
        }?;
        let found = match &source.strip_prefix {
            Some(prefix) => found.trim().strip_prefix(prefix.as_str())?.to_owned(),
            None => found,
        };
        // White space around an id is no part of it: plugins read it so, too.
        let found = found.trim();
        (!found.is_empty()).then(|| found.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(pointer: &str, strip: Option<&str>) -> KeySource {
        KeySource { place: KeyPlace::Pointer(pointer.into()), strip_prefix: strip.map(str::to_owned) }
    }

    #[track_caller]
    fn check(sources: &[KeySource], data: &str, expect: Option<&str>) {
        let headers = [("X-Key".to_owned(), "h".to_owned())];
        assert_eq!(order_key(sources, &headers, data.as_bytes()).as_deref(), expect, "{data}");
    }

    #[test]
    fn the_first_source_that_has_a_value_wins() {
        let sources = [pointer("/a", None), pointer("/b/c", None), pointer("/t", Some("derive-"))];
        check(&sources, r#"{"a": "x", "b": {"c": "y"}}"#, Some("x"));
        check(&sources, r#"{"a": " ", "b": {"c": 7}}"#, Some("7"));
        check(&sources, r#"{"a": " x\n"}"#, Some("x"));
        check(&sources, r#"{"a": null, "t": "derive-derive-1"}"#, Some("derive-1"));
        check(&sources, r#"{"t": "other-1"}"#, None);
        check(&sources, "not json", None);
    }

    #[test]
    fn a_key_of_any_length_has_a_cell() {
        assert_eq!(cell("task/{key}", "7"), "task/7");
        let long = "x".repeat(100_000);
        assert_eq!(cell("task/{key}", &long).len(), "task/sha256:".len() + 64);
        assert_ne!(cell("{key}", &long), cell("{key}", &long[1..]));
    }

    #[test]
    fn a_header_serves_where_the_payload_is_not_json() {
        let source = KeySource { place: KeyPlace::Header("x-key".into()), strip_prefix: None };
        check(&[pointer("/a", None), source], "not json", Some("h"));
    }
}
