//! Publishing, now and later, as an effect.

use serde::Serialize;

use crate::{Pairs, sys};

/// Why a message can't be published. A limit or a denial is an error, never a trap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// No grant covers the subject, or a header belongs to the host (`Nats-*`, `Cofferdam-*`), or a timer is not the
    /// plugin's own.
    #[error("denied: {0}")]
    Denied(String),
    /// What this event commits, its messages, timers, jobs and state together, is over the limit (default 960 KiB).
    #[error("too large: {0}")]
    TooLarge(String),
    /// More than one event may publish, schedule and cancel together (default 1,000).
    #[error("limit: {0}")]
    Limit(String),
    /// Not a subject to publish to: empty tokens, wildcards, white space. Or not the id of a timer.
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
    let (headers, data) = json(subject, value)?;
    sys::emit(subject, &headers, &data)
}

/// Sets a timer when the event commits: the message is published once, at `at` or soon after, whatever crashes meanwhile.
/// `at` is in nanoseconds since the epoch, as [`crate::clock::now`] has it; a time that has passed is at once. Returns the
/// timer's id, the same on every run of the event.
pub fn schedule(at: u64, subject: &str, data: impl AsRef<[u8]>) -> Result<String, EmitError> {
    sys::schedule(at, subject, &[], data.as_ref())
}

/// As [`schedule`], with headers.
pub fn schedule_with(
    at: u64,
    subject: &str,
    headers: &[(String, String)],
    data: impl AsRef<[u8]>,
) -> Result<String, EmitError> {
    sys::schedule(at, subject, headers, data.as_ref())
}

/// As [`schedule`], with `value` as JSON and a `Content-Type` that says so.
pub fn schedule_json<T: Serialize + ?Sized>(at: u64, subject: &str, value: &T) -> Result<String, EmitError> {
    let (headers, data) = json(subject, value)?;
    sys::schedule(at, subject, &headers, &data)
}

/// Takes one of this plugin's timers back when the event commits, so that it does not fire if it has not by then. One that
/// has fired, was cancelled or never was is fine.
pub fn cancel(timer_id: &str) -> Result<(), EmitError> {
    sys::cancel(timer_id)
}

fn json<T: Serialize + ?Sized>(subject: &str, value: &T) -> Result<(Pairs, Vec<u8>), EmitError> {
    let data = serde_json::to_vec(value)
        .map_err(|error| EmitError::Limit(format!("the message for {subject} has no JSON form: {error}")))?;
    Ok((vec![("Content-Type".into(), "application/json".into())], data))
}
