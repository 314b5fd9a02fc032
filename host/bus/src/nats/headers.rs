//! Headers as NATS has them, both ways. What a caller may set and what we add is `outgoing`'s business.

use async_nats::{HeaderMap, HeaderName};

use crate::{api::Headers, outgoing};

/// To send; of headers that `outgoing` gave, or of our own.
pub(super) fn map(headers: &[(impl AsRef<str>, impl AsRef<str>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        match COMMON.iter().find(|common| **common == name.as_ref()) {
            // Without a copy of it.
            Some(common) => map.append(HeaderName::from_static(common), value.as_ref()),
            None => map.append(name.as_ref(), value.as_ref()),
        }
    }
    map
}

/// On nearly each message that the daemon sends.
const COMMON: [&str; 5] =
    [outgoing::CAUSE, outgoing::MESSAGE_ID, outgoing::EXPECTED, "Cofferdam-Plugin", "traceparent"];

/// Sorted by name, so that a run sees the same every time; the values of a name in their order.
pub(super) fn incoming(map: Option<&HeaderMap>) -> Headers {
    let mut headers: Headers = map
        .iter()
        .flat_map(|m| m.iter())
        .flat_map(|(name, values)| values.iter().map(move |v| (name.to_string(), v.as_str().to_owned())))
        .collect();
    outgoing::sort(&mut headers);
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
    outgoing::sort(&mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        api::Message,
        outgoing::{Added, outgoing, weight},
    };

    #[test]
    fn headers_come_back_as_they_went_out_and_weigh_what_is_on_the_wire() {
        let own = [("b", "2"), ("a", "1"), ("b", " 1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let message = Message { subject: "a".into(), headers: own.into(), data: Bytes::new() };
        let added = Added { cause: Some("o.1"), message_id: Some("o.1.0"), expected: Some(7) };
        let sent = outgoing(&message, added).unwrap();
        assert_eq!(incoming(Some(&map(&sent))), sent);
        let wire = "NATS/1.0\r\nCofferdam-Cause: o.1\r\nNats-Expected-Last-Subject-Sequence: 7\r\nNats-Msg-Id: o.1.0\r\na: 1\r\nb: 2\r\nb: 1\r\n\r\n";
        assert_eq!(from_wire(wire.as_bytes()), sent);
        assert_eq!(weight(&sent), wire.len() as u64);
    }
}
