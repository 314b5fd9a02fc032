//! The functions of the SDK in a guest: each calls the host's function of the same name.

pub(crate) use super::jobs::{Tokens, cancel_job, infer, job_status, submit, tokens};

use super::bindings::cofferdam::plugin as host;
use crate::{
    Failure, Pairs,
    log::Level,
    metrics::MetricError,
    publish::EmitError,
    rpc::{Code, Options, Status},
    state::StateError,
};

pub(crate) fn failure(failure: Failure) -> host::types::Failure {
    match failure {
        Failure::Retry { reason, after } => host::types::Failure::Retry(host::types::Retry {
            reason,
            after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }),
        Failure::Reject(reason) => host::types::Failure::Reject(reason),
    }
}

fn owned(labels: &[(&str, &str)]) -> Pairs {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn attempt() -> u32 {
    host::delivery::attempt()
}

pub(crate) fn last_attempt() -> bool {
    host::delivery::last_attempt()
}

pub(crate) fn deadline_ms() -> u64 {
    host::delivery::deadline_ms()
}

pub(crate) fn order_key() -> Option<String> {
    host::delivery::order_key()
}

pub(crate) fn emit(subject: &str, headers: &[(String, String)], data: &[u8]) -> Result<String, EmitError> {
    host::publish::emit(subject, headers, data).map_err(emit_error)
}

pub(crate) fn schedule(
    at: u64,
    subject: &str,
    headers: &[(String, String)],
    data: &[u8],
) -> Result<String, EmitError> {
    host::publish::schedule(at, subject, headers, data).map_err(emit_error)
}

pub(crate) fn cancel(timer_id: &str) -> Result<(), EmitError> {
    host::publish::cancel(timer_id).map_err(emit_error)
}

fn emit_error(error: host::publish::EmitError) -> EmitError {
    use host::publish::EmitError as Wire;
    match error {
        Wire::Denied(text) => EmitError::Denied(text),
        Wire::TooLarge(text) => EmitError::TooLarge(text),
        Wire::Limit(text) => EmitError::Limit(text),
        Wire::InvalidSubject(text) => EmitError::InvalidSubject(text),
        Wire::NoStream(text) => EmitError::NoStream(text),
        Wire::Unavailable(text) => EmitError::Unavailable(text),
    }
}

pub(crate) fn call(
    upstream: &str,
    method: &str,
    request: &[u8],
    options: &Options,
) -> Result<Vec<u8>, Status> {
    let wire = host::rpc::Options {
        timeout_ms: options.timeout.map(|t| u32::try_from(t.as_millis()).unwrap_or(u32::MAX)),
        metadata: options.metadata.clone(),
        repeat: options.repeat,
    };
    host::rpc::call(upstream, method, request, &wire).map_err(|status| Status {
        code: code(status.code),
        message: status.message,
        local: status.local,
    })
}

pub(crate) fn wire(code: Code) -> host::types::Code {
    use host::types::Code as Wire;
    match code {
        Code::Ok => Wire::Ok,
        Code::Cancelled => Wire::Cancelled,
        Code::Unknown => Wire::Unknown,
        Code::InvalidArgument => Wire::InvalidArgument,
        Code::DeadlineExceeded => Wire::DeadlineExceeded,
        Code::NotFound => Wire::NotFound,
        Code::AlreadyExists => Wire::AlreadyExists,
        Code::PermissionDenied => Wire::PermissionDenied,
        Code::ResourceExhausted => Wire::ResourceExhausted,
        Code::FailedPrecondition => Wire::FailedPrecondition,
        Code::Aborted => Wire::Aborted,
        Code::OutOfRange => Wire::OutOfRange,
        Code::Unimplemented => Wire::Unimplemented,
        Code::Internal => Wire::Internal,
        Code::Unavailable => Wire::Unavailable,
        Code::DataLoss => Wire::DataLoss,
        Code::Unauthenticated => Wire::Unauthenticated,
    }
}

fn code(code: host::types::Code) -> Code {
    use host::types::Code as Wire;
    match code {
        Wire::Ok => Code::Ok,
        Wire::Cancelled => Code::Cancelled,
        Wire::Unknown => Code::Unknown,
        Wire::InvalidArgument => Code::InvalidArgument,
        Wire::DeadlineExceeded => Code::DeadlineExceeded,
        Wire::NotFound => Code::NotFound,
        Wire::AlreadyExists => Code::AlreadyExists,
        Wire::PermissionDenied => Code::PermissionDenied,
        Wire::ResourceExhausted => Code::ResourceExhausted,
        Wire::FailedPrecondition => Code::FailedPrecondition,
        Wire::Aborted => Code::Aborted,
        Wire::OutOfRange => Code::OutOfRange,
        Wire::Unimplemented => Code::Unimplemented,
        Wire::Internal => Code::Internal,
        Wire::Unavailable => Code::Unavailable,
        Wire::DataLoss => Code::DataLoss,
        Wire::Unauthenticated => Code::Unauthenticated,
    }
}

fn state_error(error: host::state::StateError) -> StateError {
    use host::state::StateError as Wire;
    match error {
        Wire::NoCell(text) => StateError::NoCell(text),
        Wire::Denied(text) => StateError::Denied(text),
        Wire::Limit(text) => StateError::Limit(text),
    }
}

pub(crate) fn state_get(cell: Option<&str>, key: &str) -> Result<Option<Vec<u8>>, StateError> {
    match cell {
        None => host::state::get(key),
        Some(cell) => host::state::get_in(cell, key),
    }
    .map_err(state_error)
}

pub(crate) fn state_put(cell: Option<&str>, key: &str, value: &[u8]) -> Result<(), StateError> {
    match cell {
        None => host::state::put(key, value),
        Some(cell) => host::state::put_in(cell, key, value),
    }
    .map_err(state_error)
}

pub(crate) fn state_delete(cell: Option<&str>, key: &str) -> Result<(), StateError> {
    match cell {
        None => host::state::delete(key),
        Some(cell) => host::state::delete_in(cell, key),
    }
    .map_err(state_error)
}

pub(crate) fn state_keys(cell: Option<&str>, prefix: &str) -> Result<Vec<String>, StateError> {
    match cell {
        None => host::state::keys(prefix),
        Some(cell) => host::state::keys_in(cell, prefix),
    }
    .map_err(state_error)
}

pub(crate) fn config(key: &str) -> Option<String> {
    host::config::get(key)
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    use host::log::Level as Wire;
    let level = match level {
        Level::Trace => Wire::Trace,
        Level::Debug => Wire::Debug,
        Level::Info => Wire::Info,
        Level::Warn => Wire::Warn,
        Level::Error => Wire::Error,
    };
    host::log::write(level, message, fields);
}

fn metric_error(error: host::metrics::MetricError) -> MetricError {
    let host::metrics::MetricError::Undeclared(text) = error;
    MetricError::Undeclared(text)
}

pub(crate) fn count(name: &str, labels: &[(&str, &str)], delta: u64) -> Result<(), MetricError> {
    host::metrics::count(name, &owned(labels), delta).map_err(metric_error)
}

pub(crate) fn observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    host::metrics::observe(name, &owned(labels), value).map_err(metric_error)
}

pub(crate) fn set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), MetricError> {
    host::metrics::set(name, &owned(labels), value).map_err(metric_error)
}

pub(crate) fn now() -> u64 {
    host::clock::now()
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    host::clock::random(len)
}
