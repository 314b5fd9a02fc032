//! Unary gRPC calls to the upstreams that the operator configured. A call is no effect: it happens at once, and
//! again if the event runs again, with the same idempotency key in its metadata. The answer of a method that the operator
//! marked `once` is recorded: every run of the event gets the same one.

use std::{fmt, time::Duration};

use prost::Message;

use crate::{Pairs, sys};

/// Codes and their numbers as in gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        })
    }
}

/// A call that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
    /// The host's word, not the upstream's: no grant, unknown upstream, too large; and what only `once` methods meet,
    /// [`Status::is_outcome_unknown`] and a bus that is out of reach ([`Code::Unavailable`]).
    pub local: bool,
}

impl Status {
    /// As an upstream would answer it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), local: false }
    }

    /// True if an earlier run of the event began this `once` call and nobody knows what became of it. Nothing was sent now.
    /// Find out by another call whether it happened, or make it knowingly, with [`Options::repeat`]. Only where the
    /// operator chose `unknown-outcome = "ask"`.
    pub fn is_outcome_unknown(&self) -> bool {
        self.local && self.code == Code::Unknown
    }

    /// True if the same call may succeed later: the upstream is down, slow or overloaded, or failed inside, or the bus is
    /// out of reach. What the host itself refused stays refused until the operator changes the configuration; an unknown
    /// outcome stays unknown.
    pub fn is_transient(&self) -> bool {
        if self.local {
            return self.code == Code::Unavailable;
        }
        matches!(
            self.code,
            Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable
        )
    }
}

/// How to call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Default: the upstream's (5 s unless configured). Never longer than what is left for the event.
    pub timeout: Option<Duration>,
    /// ASCII, 64 entries and 8 KiB together at most. `authorization`, `traceparent`, `grpc-*` and `cofferdam-*` belong to the
    /// host.
    pub metadata: Pairs,
    /// Make a `once` call although an earlier run may have made it; see [`Status::is_outcome_unknown`].
    pub repeat: bool,
}

/// Calls `method` (`package.Service/Method`) of `upstream` with an encoded message and waits for the encoded answer,
/// each at most 4 MiB.
pub fn call(upstream: &str, method: &str, request: &[u8], options: &Options) -> Result<Vec<u8>, Status> {
    sys::call(upstream, method, request, options)
}

/// As [`call`], with prost messages and default options.
pub fn unary<Req: Message, Resp: Message + Default>(
    upstream: &str,
    method: &str,
    request: &Req,
) -> Result<Resp, Status> {
    unary_with(upstream, method, request, &Options::default())
}

/// As [`call`], with prost messages.
pub fn unary_with<Req: Message, Resp: Message + Default>(
    upstream: &str,
    method: &str,
    request: &Req,
    options: &Options,
) -> Result<Resp, Status> {
    let answer = call(upstream, method, &request.encode_to_vec(), options)?;
    Resp::decode(answer.as_slice()).map_err(|error| {
        Status::new(Code::Internal, format!("the answer of {method} can't be read: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_says_passes_only_if_the_bus_is_out_of_reach() {
        let status = |code, local| Status { local, ..Status::new(code, "") };
        assert!(status(Code::Unavailable, true).is_transient());
        assert!(!status(Code::ResourceExhausted, true).is_transient());
        assert!(status(Code::ResourceExhausted, false).is_transient());
    }

    #[test]
    fn an_unknown_outcome_is_the_hosts_word() {
        let status = |local| Status { local, ..Status::new(Code::Unknown, "") };
        assert!(status(true).is_outcome_unknown() && !status(true).is_transient());
        assert!(!status(false).is_outcome_unknown() && status(false).is_transient());
    }
}
