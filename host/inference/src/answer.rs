//! What a model said.

use std::time::Duration;

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Never empty.
    pub content: String,
    /// What it thought before, where the server keeps that apart. Empty if there is none.
    pub reasoning: String,
    /// Why it ended. `None` if the server did not say.
    pub finish: Option<Finish>,
    /// `None` if the server did not say.
    pub usage: Option<Usage>,
    /// The model that the server says it was.
    pub model: Option<String>,
    /// From sending the request to the first text. `None` if the answer came in one piece.
    pub first_token_after: Option<Duration>,
}

/// A piece of it; one of the texts may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    pub content: String,
    pub reasoning: String,
}

/// Why an answer ended (`finish_reason`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    Stop,
    /// It was cut: `max_tokens`, or the model's context, was full.
    Length,
    ContentFilter,
    Other(String),
}

impl Finish {
    pub(crate) fn of(reason: String) -> Self {
        match reason.as_str() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other(reason),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Other(reason) => reason,
        }
    }
}

/// Tokens, as the server counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub tokens_in: u64,
    pub tokens_out: u64,
}
