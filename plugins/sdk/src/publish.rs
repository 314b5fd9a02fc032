//! Publishing, as an effect.

use serde::Serialize;

use crate::{Pairs, sys};

/// Why a message can't be published. A limit or a denial is an error, never a trap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// No grant covers the subject, or a header belongs to the host (`Nats-*`, `Cofferdam-*`).
    #[error("denied: {0}")]
    Denied(String),
    /// The message, or all of this event's messages together, is over the limit (default 1 MiB, 8 MiB).
    #[error("too large: {0}")]
    TooLarge(String),
    /// More messages than one event may publish (default 1,000).
    #[error("limit: {0}")]
    Limit(String),
    /// Not a subject to publish to: empty tokens, wildcards, white space.
    #[error("invalid subject: {0}")]
    InvalidSubject(String),
    /// No stream stores the subject, so it would be lost.
    #[error("no stream: {0}")]
    NoStream(String),
    /// The bus is out of reach. A retry is in order.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// Publishes a message without headers when the event commits. Returns the id that it will carry, the same on every
/// run of the event.
pub fn emit(subject: &str, data: impl AsRef<[u8]>) -> Result<String, EmitError> {
    sys::emit(subject, &[], data.as_ref())
}

/// As [`emit`], with headers.
pub fn emit_with(
    subject: &str,
    headers: &[(String, String)],
    data: impl AsRef<[u8]>,
) -> Result<String, EmitError> {
    sys::emit(subject, headers, data.as_ref())
}

/// As [`emit`], with `value` as JSON and a `Content-Type` that says so.
pub fn emit_json<T: Serialize + ?Sized>(subject: &str, value: &T) -> Result<String, EmitError> {
    let data = serde_json::to_vec(value)
        .map_err(|error| EmitError::Limit(format!("the message for {subject} has no JSON form: {error}")))?;
    let headers: Pairs = vec![("Content-Type".into(), "application/json".into())];
    sys::emit(subject, &headers, &data)
}
