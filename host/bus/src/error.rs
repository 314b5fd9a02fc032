//! What can go wrong on the bus, as callers decide on it.

/// An operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Out of reach, or no answer in time. Whether the operation happened is unknown.
    #[error("the bus is out of reach: {0}")]
    Unavailable(String),
    /// What answers can't serve as the bus.
    #[error("{0}")]
    Unusable(String),
    #[error("no stream stores the subject {subject:?}; create one that covers it, or correct the subject")]
    NoStream { subject: String },
    #[error("{subject:?} has moved on: its last message is not {expected} any more")]
    WrongLastSequence { subject: String, expected: u64 },
    #[error("a message of {size} bytes for {subject:?} is over the limit of {max} bytes")]
    TooLarge { subject: String, size: u64, max: u64 },
    /// What exists is not what was asked for; it is never changed silently.
    #[error(
        "{what} {name:?} exists with other settings: {difference}; make ours agree with it, rename ours, or edit it \
         (a durable that is deleted begins anew, with all that its stream holds)"
    )]
    Differs { what: &'static str, name: String, difference: String },
    /// The stream or durable was deleted under us.
    #[error("{what} {name:?} is gone")]
    Gone { what: &'static str, name: String },
    #[error("{0:?} is not a valid subject")]
    InvalidSubject(String),
    /// The bus said no, for good.
    #[error("the bus refused: {0}")]
    Refused(String),
    /// What we stored cannot be read: written by a newer version, or damaged.
    #[error("{subject:?} holds what this version can't read: {reason}")]
    Unreadable { subject: String, reason: String },
}

/// Why a change was not committed by this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The cell changed since the snapshot: open and run again.
    #[error("the cell was changed meanwhile")]
    Conflict,
    /// Another run of the event has committed; its effects are applied, the delivery is acked, this run is void.
    #[error("another run of this event has committed")]
    Settled,
    /// The change can't be committed as it is: no stream, too large, more than its commit class allows. Nothing happened.
    #[error("{0}")]
    Unfit(String),
    /// The bus failed before anything was committed.
    #[error(transparent)]
    Bus(#[from] Error),
}
