//! An answer as it comes.

use std::{fmt, iter::FusedIterator};

use super::{Completion, ExecutorError};
use crate::sys;

/// A piece of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    pub text: String,
    /// The text begins anew with this piece, and what came before it is void: the model had to be asked again.
    pub anew: bool,
}

/// The pieces of an answer, each as it comes; an error is the last. Dropping it ends nothing: the answer is recorded all the same,
/// and another run of the event has it, in one piece.
///
/// ```
/// use cofferdam_sdk::{Event, Failure, executor::Inference, testing::{Host, event}};
///
/// fn handle(_: Event) -> Result<(), Failure> {
///     let mut text = String::new();
///     for chunk in Inference::new("Tell me a story.").tokens()? {
///         let chunk = chunk?;
///         if chunk.anew {
///             text.clear();
///         }
///         text.push_str(&chunk.text);
///     }
///     assert_eq!(text, "Once upon a time.");
///     Ok(())
/// }
///
/// let mut host = Host::new().completes_in_pieces(["Once upon", " a time."]);
/// assert_eq!(host.run(handle, event("x", "{}")).result, Ok(()));
/// ```
pub struct Tokens {
    stream: sys::Tokens,
    over: bool,
}

impl Tokens {
    pub(super) fn new(stream: sys::Tokens) -> Self {
        Self { stream, over: false }
    }

    /// Waits for the end; the whole answer, whatever pieces were taken.
    pub fn finish(self) -> Result<Completion, ExecutorError> {
        self.stream.finish()
    }
}

impl Iterator for Tokens {
    type Item = Result<Chunk, ExecutorError>;

    /// Waits for the next piece.
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.stream.next().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl FusedIterator for Tokens {}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("over", &self.over).finish_non_exhaustive()
    }
}
