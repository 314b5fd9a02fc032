//! The work that both sides do with an event, and the events.

use bytes::Bytes;
use serde_json::{Value, json};

/// Publishes of one event in `fanout`.
pub(crate) const FAN: u64 = 10;
/// Keys of `state`, in turn: more than events are in flight, so that no two events of a key are.
pub(crate) const KEYS: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Parse, and publish once.
    Publish,
    /// Parse, and publish [`FAN`] times.
    Fan,
    /// Parse, count under the event's key, and publish the count.
    Count,
}

/// How the daemon commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Publish,
    Record,
    Cell,
}

impl Class {
    /// Lines of the manifest's subscription.
    pub(crate) fn subscription(self) -> &'static str {
        match self {
            Class::Publish => "commit = \"publish\"",
            Class::Record => "commit = \"record\"",
            Class::Cell => "order-key = [\"/key\"]",
        }
    }
}

impl Work {
    /// As the guest is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Publish => "publish",
            Work::Fan => "fan",
            Work::Count => "count",
        }
    }

    /// Publishes of one event.
    pub(crate) fn outputs(self) -> u64 {
        if self == Work::Fan { FAN } else { 1 }
    }

    /// Messages that a bare loop has stored for one event.
    pub(crate) fn writes(self) -> u64 {
        if self == Work::Count { 2 } else { self.outputs() }
    }
}

/// An event of exactly so many bytes: it says what to do with it, and where the outputs go.
pub(crate) fn event(number: u64, work: Work, to: &str, size: u64) -> Bytes {
    let key = number % KEYS;
    let head = format!(
        r#"{{"id":{number},"work":"{}","to":"{to}","key":"k{key}","priority":3,"done":false,"text":""#,
        work.name()
    );
    let size = usize::try_from(size).expect("a size");
    let text = "abcdefghijklmnopqrstuvwxyz ".chars().cycle().take(size.saturating_sub(head.len() + 2));
    format!("{head}{}\"}}", text.collect::<String>()).into()
}

/// What is published for one event, made of its JSON as the guests do it (tests/guests). `part` counts the
/// publishes of an event; `count` is what its key has come to.
pub(crate) fn output(event: &Value, part: u64, count: u64) -> Bytes {
    json!({ "id": event["id"], "part": part, "count": count, "key": event["key"], "priority": event["priority"] })
        .to_string()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_of_the_size_that_was_asked_for() {
        for number in [0, 7, 999_999] {
            let event = event(number, Work::Publish, "cofferdam.bench-out", 160);
            assert_eq!(event.len(), 160);
            let value: Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(value["id"], number);
        }
    }
}
