//! Why there is no answer: what happened, in a word that stays and in words for people, and whether to ask again.

use std::time::Duration;

use crate::answer::Usage;

/// No answer, or none that is of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint} with model {model:?}: {detail}")]
pub struct Failure {
    pub kind: Kind,
    /// Whether the request can have been worked.
    pub work: Work,
    /// The status that the endpoint answered with.
    pub status: Option<u16>,
    /// How long to leave it alone: the endpoint says so (`Retry-After`), or the pool knows.
    pub retry_after: Option<Duration>,
    /// Name and address.
    pub endpoint: String,
    pub model: String,
    /// What happened and what to do, with an excerpt of what the endpoint said.
    pub detail: String,
    /// What was paid for all the same, as far as the endpoint said.
    pub usage: Option<Usage>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No connection.
    Unreachable,
    Timeout(Late),
    /// Busy: 429, 503 and 529.
    Overloaded,
    /// Any other 5xx, or an error in the place of an answer.
    ServerError,
    /// The request is at fault.
    Refused,
    Unauthorized,
    /// Not what an OpenAI-compatible endpoint answers.
    Malformed,
    /// An answer without content.
    Empty,
    /// The answer broke off.
    Truncated,
    TooLarge,
    /// Nobody waits for it any more.
    Cancelled,
    ModelMissing,
    /// JSON was asked for, and the content is none.
    InvalidSchema,
}

/// Whose patience ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The request's deadline, which says nothing of the endpoint.
    Deadline,
    /// [`Limits::first`](crate::Limits::first) or [`Limits::whole`](crate::Limits::whole), and nothing had come.
    Answer,
    /// [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// [`Limits::whole`](crate::Limits::whole), in the middle of an answer.
    Whole,
}

/// Whether the request can have been worked, and so be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Nothing was sent.
    NotSent,
    /// The endpoint said no.
    NotWorked,
    /// It may have been worked, or still be.
    Unknown,
    /// There was an answer.
    Worked,
}

impl Kind {
    /// The word that stays, for metrics and for whoever decides on it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout(Late::Deadline) => "timeout",
            Self::Timeout(Late::Answer | Late::Idle) => "hung",
            Self::Timeout(Late::Whole) => "endless",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
            Self::ModelMissing => "model_missing",
            Self::InvalidSchema => "invalid_schema",
        }
    }
}

impl Failure {
    /// Whether asking again can't pay twice: the request was not worked. Whether it is of use is another matter, see
    /// [`Failure::may_pass`].
    pub fn is_safe_to_retry(&self) -> bool {
        self.work <= Work::NotWorked
    }

    /// Whether the same endpoint may answer the same request later.
    pub fn may_pass(&self) -> bool {
        match self.kind {
            Kind::Unreachable | Kind::Overloaded | Kind::ServerError | Kind::Truncated => true,
            Kind::Timeout(late) => late != Late::Deadline,
            _ => false,
        }
    }

    /// Whether another endpoint may answer the same request now.
    pub fn may_do_elsewhere(&self) -> bool {
        self.may_pass() || matches!(self.kind, Kind::Unauthorized | Kind::ModelMissing | Kind::Malformed)
    }

    /// Whether it says that the endpoint is out of order, rather than busy or asked for the wrong thing.
    pub(crate) fn is_breakdown(&self) -> bool {
        match self.kind {
            Kind::Unreachable | Kind::ServerError | Kind::Truncated | Kind::Malformed => true,
            Kind::Timeout(late) => matches!(late, Late::Answer | Late::Idle),
            // 503 is also what a proxy says that has nobody behind it.
            Kind::Overloaded => self.status != Some(429),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_worked_is_safe_to_ask_again() {
        for (work, safe) in
            [(Work::NotSent, true), (Work::NotWorked, true), (Work::Unknown, false), (Work::Worked, false)]
        {
            let failure = Failure {
                kind: Kind::ServerError,
                work,
                status: None,
                retry_after: None,
                endpoint: "e".into(),
                model: "m".into(),
                detail: "d".into(),
                usage: None,
            };
            assert_eq!(failure.is_safe_to_retry(), safe, "{work:?}");
        }
    }
}
