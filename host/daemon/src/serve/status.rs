//! Which gRPC status tells of what.

use cofferdam_sandbox::ServeError;
use tonic::{Code, Status};

use crate::{
    dispatch::{Failed, Outcome},
    observe::text,
};

/// Of a message in bytes: it goes into a header, of which clients take some KiB.
const MAX_MESSAGE: usize = 2 << 10;

/// A request over the `limit` of so many bytes, as tonic tells it.
pub(crate) fn over(status: &Status, most: usize, limit: &str) -> Option<Status> {
    (status.code() == Code::OutOfRange).then(|| {
        Status::resource_exhausted(format!("the request has more than {most} bytes, {limit} max-request"))
    })
}

/// What a client gets of a run that brought no answer of its own.
pub(crate) fn of_failure(outcome: &Outcome) -> ServeError {
    let reason = outcome.reason().unwrap_or_default();
    let (code, message) = match outcome {
        Outcome::Failure { how: Failed::Status(code), .. } => (Code::from(i32::from(*code)), reason.to_owned()),
        Outcome::Failure { how: Failed::Trapped, .. } => (Code::Internal, format!("the plugin trapped: {reason}")),
        Outcome::Failure { how: Failed::TimedOut, .. } => {
            (Code::DeadlineExceeded, format!("the plugin ran out of its time: it {reason}"))
        }
        Outcome::Failure { how: Failed::Limited, .. } => {
            (Code::ResourceExhausted, format!("the plugin was stopped at a limit: it {reason}"))
        }
        Outcome::Failure { how: Failed::Unfit, .. } => {
            (Code::Internal, format!("what the plugin answers and asks for can't be stored: {reason}"))
        }
        // Kept: whoever repeats it blindly kills one host after another.
        Outcome::Failure { how: Failed::Deadly, .. } => (
            Code::FailedPrecondition,
            "the host died each time this call ran alone, until it was given up; find out why before another call like it"
                .to_owned(),
        ),
        Outcome::Failure { how: Failed::Retry | Failed::Rejected, .. } => (Code::Internal, reason.to_owned()),
        Outcome::HandedBack(reason) => (Code::Unavailable, reason.clone()),
        // Not failures.
        Outcome::Done | Outcome::Duplicate => (Code::Internal, "the call was over".to_owned()),
    };
    ServeError { code: number(code), message: text::excerpt(&message, MAX_MESSAGE).into_owned() }
}

/// Is this the answer to every repeat, too? With the others a client is told to call again, and its repeat runs anew.
pub(super) fn is_kept(code: u8) -> bool {
    !matches!(
        Code::from(i32::from(code)),
        Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
    )
}

pub(super) fn of(error: ServeError) -> Status {
    Status::new(Code::from(i32::from(error.code)), error.message)
}

/// 0 to 16.
pub(super) fn number(code: Code) -> u8 {
    u8::try_from(code as i32).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_repeats_is_not_kept() {
        let kept: Vec<u8> = (0..=16).filter(|code| is_kept(*code)).collect();
        assert_eq!(kept, [0, 3, 5, 6, 7, 9, 11, 12, 15, 16]);
    }
}
