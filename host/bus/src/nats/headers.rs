//! Headers of stored messages, both ways: ours to NATS's and back, and what they weigh.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    api::{Headers, Message},
    error::Error,
};

/// Which event caused a message: `<origin>.<sequence>`.
pub(super) const CAUSE: &str = "Cofferdam-Cause";
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// A time to live is the one instruction to the server that a caller may give.
const TTL: &str = "Nats-TTL";

/// What we add to a message's own headers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Added<'a> {
    pub(super) cause: Option<&'a str>,
    pub(super) message_id: Option<&'a str>,
    pub(super) expected: Option<u64>,
}

/// The headers to send, or why they can't be. An instruction to the server (`Nats-*`) among the caller's headers could
/// make it discard other messages or forge an identity, so it is refused.
pub(super) fn outgoing(message: &Message, added: Added<'_>) -> Result<HeaderMap, Error> {
    let refuse = |name: &str, why: &str| {
        Error::Refused(format!("header {name:?} of a message for {:?} {why}", message.subject))
    };
    let mut map = HeaderMap::new();
    for (name, value) in &message.headers {
        let reserved = name.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("nats-"));
        if reserved && !name.eq_ignore_ascii_case(TTL) {
            return Err(refuse(name, "is an instruction to the server; only Nats-TTL may be set"));
        }
        if name.is_empty() {
            return Err(refuse(name, "has no name"));
        }
        // A copy of another event's headers: its cause is not this one's.
        if added.cause.is_some() && name.eq_ignore_ascii_case(CAUSE) {
            continue;
        }
        let key = HeaderName::from_str(name).map_err(|_| refuse(name, "is not a valid header name"))?;
        // White space around a value means nothing to NATS; readers drop it.
        let value =
            HeaderValue::from_str(value.trim()).map_err(|_| refuse(name, "has a line break in its value"))?;
        map.append(key, value);
    }
    if let Some(cause) = added.cause {
        map.insert(CAUSE, cause);
    }
    if let Some(id) = added.message_id {
        let id =
            HeaderValue::from_str(id).map_err(|_| refuse(MESSAGE_ID, "has a line break in its value"))?;
        map.insert(async_nats::header::NATS_MESSAGE_ID, id);
    }
    if let Some(expected) = added.expected {
        map.insert(EXPECTED, expected.to_string());
    }
    Ok(map)
}

/// Sorted by name, so that a run sees the same every time; the values of a name in their order.
pub(super) fn incoming(map: Option<&HeaderMap>) -> Headers {
    let mut headers: Headers = map
        .iter()
        .flat_map(|m| m.iter())
        .flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.as_str().to_owned())))
        .collect();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// The block as it was on the wire, which is how stored messages are read back.
pub(super) fn from_wire(block: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(block);
    let mut headers: Headers = text
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// What they weigh on the wire and in the server's limits.
pub(super) fn weight(map: &HeaderMap) -> u64 {
    if map.is_empty() {
        return 0;
    }
    let lines: usize = map
        .iter()
        .flat_map(|(name, values)| {
            values.iter().map(move |v| AsRef::<str>::as_ref(name).len() + v.as_str().len() + 4)
        })
        .sum();
    (lines + "NATS/1.0\r\n\r\n".len()) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn with(headers: &[(&str, &str)]) -> Message {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Message { subject: "a".into(), headers, data: Bytes::new() }
    }

    #[test]
    fn instructions_to_the_server_are_refused() {
        for name in ["Nats-Rollup", "nats-msg-id", "Nats-Expected-Stream", "", "a b", "a:b"] {
            assert!(
                matches!(outgoing(&with(&[(name, "x")]), Added::default()), Err(Error::Refused(_))),
                "{name}"
            );
        }
        assert!(outgoing(&with(&[("X", "a\r\nNats-Rollup: all")]), Added::default()).is_err());
        assert!(outgoing(&with(&[("Nats-TTL", "1s")]), Added::default()).is_ok());
    }

    #[test]
    fn headers_come_back_sorted_with_repeated_names_in_order() {
        let map = outgoing(&with(&[("b", "2"), ("a", "1"), ("b", "1")]), Added::default()).unwrap();
        let pairs = incoming(Some(&map));
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "2"), ("b", "1")]);
    }

    #[test]
    fn weight_is_that_of_the_wire_form() {
        let added = Added { cause: Some("o.1"), message_id: Some("o.1.0"), expected: Some(7) };
        let map = outgoing(&with(&[("a", "1"), ("cofferdam-cause", "another's")]), added).unwrap();
        let wire = "NATS/1.0\r\na: 1\r\nCofferdam-Cause: o.1\r\nNats-Msg-Id: o.1.0\r\nNats-Expected-Last-Subject-Sequence: 7\r\n\r\n";
        assert_eq!(weight(&map), wire.len() as u64);
        assert_eq!(from_wire(wire.as_bytes()), incoming(Some(&map)));
    }
}
