//! What comes with a call: its metadata, how long its client waits, and the key by which it knows the call.

use std::time::{Duration, Instant};

use cofferdam_sandbox::Pairs;
use http::HeaderMap;
use tonic::Status;

use crate::capabilities::Within;

/// By which a client repeats a call. The first is what hosts send when their plugins call others.
const KEYS: [&str; 2] = ["cofferdam-idempotency-key", "idempotency-key"];
const TIMEOUT: &str = "grpc-timeout";
/// Of the protocol, of HTTP, or of whoever stands between; and what proves who is there: a call that writes is stored.
const OTHERS: [&str; 12] = [
    "te",
    "content-type",
    "content-length",
    "user-agent",
    "host",
    "connection",
    "accept-encoding",
    "forwarded",
    "authorization",
    "proxy-authorization",
    "cookie",
    "idempotency-key",
];
const HOSTS: [&str; 4] = ["grpc-", "cofferdam-", "nats-", "x-forwarded-"];
/// No client waits longer, and clocks can be added to it without overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What is left of its time for an answer that says that it is over.
const GOODBYE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    /// For the guest, sorted by name.
    pub(crate) metadata: Pairs,
    /// The client's own for this call.
    pub(crate) key: Option<String>,
    /// When it is answered at the latest.
    pub(crate) deadline: Instant,
    /// A run of this host calls.
    pub(crate) within: Option<Within>,
}

impl Incoming {
    /// `longest`: what a client waits for that does not say.
    pub(crate) fn new(headers: &HeaderMap, began: Instant, longest: Duration) -> Result<Self, Status> {
        let timeout = headers.get(TIMEOUT).and_then(|value| timeout(value.to_str().ok()?));
        let timeout = timeout.unwrap_or(longest).min(LONGEST);
        let deadline = began + timeout.saturating_sub(GOODBYE.min(timeout / 10));
        Ok(Self { metadata: metadata(headers), key: key(headers)?, deadline, within: None })
    }
}

fn metadata(headers: &HeaderMap) -> Pairs {
    let of_others = |name: &str| {
        OTHERS.contains(&name) || HOSTS.iter().any(|own| name.starts_with(own)) || name.ends_with("-bin")
    };
    let pairs = headers.iter().filter(|(name, _)| !of_others(name.as_str()));
    let text =
        pairs.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    let mut text: Pairs = text.collect();
    text.sort_by(|a, b| a.0.cmp(&b.0));
    text
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Status> {
    let Some((name, value)) = KEYS.into_iter().find_map(|name| Some((name, headers.get(name)?))) else {
        return Ok(None);
    };
    match value.to_str().map(str::trim) {
        Ok(key) if !key.is_empty() => Ok(Some(key.to_owned())),
        _ => Err(Status::invalid_argument(format!(
            "the metadata {name} is empty or not printable ASCII; give each call a key of its own, such as a UUID, or leave it out"
        ))),
    }
}

/// As gRPC writes it: up to 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_guest_sees_the_clients_own_metadata_sorted() {
        let all = headers(&[
            ("x-b", "2"),
            ("grpc-timeout", "1S"),
            ("content-type", "application/grpc"),
            ("traceparent", "00-a"),
            ("authorization", "Bearer x"),
            ("idempotency-key", "k"),
            ("x-trace-bin", "AA"),
            ("cofferdam-x", "1"),
            ("x-a", "1"),
        ]);
        let incoming = Incoming::new(&all, Instant::now(), Duration::from_secs(60)).unwrap();
        let pairs: Vec<(&str, &str)> =
            incoming.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("traceparent", "00-a"), ("x-a", "1"), ("x-b", "2")]);
        assert_eq!(incoming.key.as_deref(), Some("k"));
    }

    #[test]
    fn a_clients_time_is_its_own_and_else_the_hosts() {
        let began = Instant::now();
        let left = |pairs: &[(&'static str, &str)]| {
            Incoming::new(&headers(pairs), began, Duration::from_secs(60)).unwrap().deadline - began
        };
        assert_eq!(left(&[]), Duration::from_millis(59_980));
        assert_eq!(left(&[("grpc-timeout", "100m")]), Duration::from_millis(90));
        assert_eq!(left(&[("grpc-timeout", "2M")]), Duration::from_millis(119_980));
        assert_eq!(left(&[("grpc-timeout", "99999999H")]), LONGEST - GOODBYE);
        for bad in ["", "S", "1", "1s", "-1S", "123456789S"] {
            assert_eq!(left(&[("grpc-timeout", bad)]), Duration::from_millis(59_980), "{bad}");
        }
    }

    #[test]
    fn a_key_is_something() {
        let key = |pairs: &[(&'static str, &str)]| key(&headers(pairs));
        assert_eq!(key(&[]).unwrap(), None);
        assert_eq!(
            key(&[("idempotency-key", "a"), ("cofferdam-idempotency-key", "b")]).unwrap().unwrap(),
            "b"
        );
        assert!(key(&[("idempotency-key", " ")]).is_err());
    }
}
