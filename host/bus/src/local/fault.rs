//! What can go wrong with the data on disk.

use crate::error::Error;

/// The storage failed, or holds what we can't read. Nothing of the group at hand counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Store(redb::Error),
    #[error("the data is damaged: {0}")]
    Damaged(String),
    #[error(
        "the data is of format {found}, and this version knows {known}; use the version that wrote it, or a newer one"
    )]
    Newer { found: u64, known: u64 },
    #[error("it is closed")]
    Closed,
    #[error("the writer failed in a way that it was not made for; what it said is on standard error")]
    Panic,
    #[error(
        "other data is there than before; put back what was there, or restart to go on with what is there now"
    )]
    Exchanged,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

macro_rules! from_store {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(e: $error) -> Fault {
                Fault::Store(e.into())
            }
        })*
    };
}
from_store!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError
);

impl From<prost::DecodeError> for Fault {
    fn from(e: prost::DecodeError) -> Fault {
        Fault::Damaged(e.to_string())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Damaged(reason) => {
                Error::Unreadable { subject: "the embedded bus's data".to_owned(), reason }
            }
            fault => Error::Unavailable(fault.to_string()),
        }
    }
}
