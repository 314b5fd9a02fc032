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
        Error::WrongLastSequence { subject, expected: 0 } => {
            format!(
                "{subject:?} has messages, and none was expected; read the last one, and expect its sequence"
            )
        }
        Error::WrongLastSequence { .. } => format!("{error}; read it again, and expect its sequence"),
        Error::TooLarge { .. } => format!("{error}; send less, or raise the limit of the stream or server"),
        Error::Gone { .. } => format!("{error}; make it anew, or read another"),
        Error::InvalidSubject(_) => format!("{error}; correct it"),
        Error::Unavailable(_) => format!("{error}; try again, with a message id if it is to be stored once"),
        _ => error.to_string(),
    };
    Status::new(code, text)
}

/// To whoever listens or reads when the daemon stops.
pub(super) fn stopping() -> Status {
    Status::unavailable("the daemon stops; call again once it is back")
}
