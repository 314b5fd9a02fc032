//! Reads of stored messages, always from the stream's leader.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    headers,
    jsapi::{CallError, Nanos, code},
    link::{Link, Silence},
};
use crate::api::{Message, Stored};

#[derive(Deserialize)]
struct Got {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    subject: String,
    seq: u64,
    time: Nanos,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: Option<String>,
}

/// The newest message of a subject.
pub(super) async fn last(link: &Link, stream: &str, subject: &str) -> Result<Option<Stored>, CallError> {
    get(link, stream, json!({ "last_by_subj": subject })).await
}

/// The message with this sequence.
pub(super) async fn at(link: &Link, stream: &str, sequence: u64) -> Result<Option<Stored>, CallError> {
    get(link, stream, json!({ "seq": sequence })).await
}

/// Where to begin a scan.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Sequence(u64),
    /// Nanoseconds since the epoch.
    Time(u64),
}

/// The first message of a subject from there on.
pub(super) async fn next(
    link: &Link,
    stream: &str,
    subject: &str,
    from: From,
) -> Result<Option<Stored>, CallError> {
    let body = match from {
        From::Sequence(seq) => json!({ "next_by_subj": subject, "seq": seq }),
        From::Time(nanos) => json!({ "next_by_subj": subject, "start_time": rfc3339(nanos)? }),
    };
    get(link, stream, body).await
}

async fn get(link: &Link, stream: &str, body: Value) -> Result<Option<Stored>, CallError> {
    let raw = match link.call::<Got>(&format!("STREAM.MSG.GET.{stream}"), &body).await {
        Ok(got) => got.message,
        Err(e) if e.is(code::NO_MESSAGE) => return Ok(None),
        Err(e) => return Err(e),
    };
    let headers = match &raw.hdrs {
        Some(text) => headers::from_wire(&decode(text)?),
        None => Vec::new(),
    };
    let data = decode(raw.data.as_deref().unwrap_or_default())?.into();
    let message = Message { subject: raw.subject, headers, data };
    Ok(Some(Stored { message, sequence: raw.seq, timestamp: raw.time.0 }))
}

fn decode(text: &str) -> Result<Vec<u8>, CallError> {
    STANDARD.decode(text).map_err(|e| unreadable(e.to_string()))
}

pub(super) fn rfc3339(nanos: u64) -> Result<String, CallError> {
    let time = async_nats::datetime::from_nanos(i128::from(nanos)).map_err(|e| unreadable(e.to_string()))?;
    // `Display` of this type has spaces; the server wants RFC 3339.
    let (date, clock) = (time.date(), time.time());
    let (hour, minute, second, nano) = clock.as_hms_nano();
    Ok(format!("{date}T{hour:02}:{minute:02}:{second:02}.{nano:09}Z"))
}

fn unreadable(reason: String) -> CallError {
    CallError::Silence(Silence::Unknown(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_server_reads_them() {
        assert_eq!(rfc3339(1_700_000_000_000_000_042).unwrap(), "2023-11-14T22:13:20.000000042Z");
    }
}
