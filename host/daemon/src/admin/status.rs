//! What the bus says as gRPC statuses; the `.proto` file promises them.

use cofferdam_bus::Error;
use tonic::{Code, Status};

pub(super) fn of(error: Error) -> Status {
    let code = match &error {
        Error::Unavailable(_) => Code::Unavailable,
        Error::NoStream { .. } | Error::Gone { .. } => Code::NotFound,
        Error::WrongLastSequence { .. } => Code::FailedPrecondition,
        Error::TooLarge { .. } => Code::ResourceExhausted,
        Error::InvalidSubject(_) | Error::Refused(_) => Code::InvalidArgument,
        Error::Unusable(_) | Error::Differs { .. } | Error::Unreadable { .. } => Code::Internal,
    };
    let text = match error {
        Error::WrongLastSequence { .. } => format!("{error}; read it again, and expect its sequence"),
        Error::TooLarge { .. } => format!("{error}; send less, or raise the limit of the stream or server"),
        Error::Gone { .. } => format!("{error}; make it anew, or read another"),
        Error::InvalidSubject(_) => format!("{error}; correct it"),
        Error::Unavailable(_) => format!("{error}; try again, with a message id if it is to be stored once"),
        _ => error.to_string(),
    };
    Status::new(code, text)
}

/// The expected sequence is not that of the subject's last message; `last` is.
pub(super) fn wrong_last(subject: &str, expected: u64, last: Option<u64>) -> Status {
    let is = match last {
        Some(last) => format!("its last message has the sequence {last}"),
        None => "it has no message".to_owned(),
    };
    let was = match expected {
        0 => "none was expected".to_owned(),
        expected => format!("{expected} was expected"),
    };
    let then = last.map_or("expect 0".to_owned(), |last| format!("read it, and expect {last}"));
    Status::failed_precondition(format!("{subject:?} has moved on: {is}, and {was}; {then}"))
}

/// To whoever listens or reads when the daemon stops.
pub(super) fn stopping() -> Status {
    Status::unavailable("the daemon stops; call again once it is back")
}
