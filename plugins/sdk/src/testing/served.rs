//! What one call did, for a test to look at.

use std::ops::Deref;

use prost::Message;

use super::Run;
use crate::service::Status;

/// The outcome of [`Host::serve`](super::Host::serve): the answer, and all that a [`Run`] tells.
#[derive(Debug, Clone)]
pub struct Served {
    pub answer: Result<Vec<u8>, Status>,
    pub(super) run: Run,
}

impl Served {
    /// The answer as a message.
    ///
    /// # Panics
    /// If the answer is a status, or not of that type.
    #[expect(clippy::panic, reason = "a test that reads an answer which is none has failed")]
    pub fn read<M: Message + Default>(&self) -> M {
        match &self.answer {
            Ok(answer) => match M::decode(answer.as_slice()) {
                Ok(message) => message,
                Err(error) => panic!("the answer is of another type: {error}"),
            },
            Err(status) => panic!("answered with {status}"),
        }
    }

    /// The status, where the answer is one.
    ///
    /// # Panics
    /// If the answer is a message.
    #[expect(clippy::panic, reason = "a test that expects a status and gets an answer has failed")]
    pub fn status(&self) -> &Status {
        match &self.answer {
            Err(status) => status,
            Ok(answer) => panic!("answered with a message of {} bytes", answer.len()),
        }
    }
}

/// `result` is `Ok` where the answer is a message, and otherwise a rejection with the status as its reason.
impl Deref for Served {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}
