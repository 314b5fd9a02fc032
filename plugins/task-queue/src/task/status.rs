//! How a task stands, in the words of the fleet.

use std::fmt;

use serde::{Deserialize, Serialize};

const QUEUED: &str = "QUEUED";
const IN_PROGRESS: &str = "IN_PROGRESS";
const COMPLETED: &str = "COMPLETED";
const FAILED: &str = "FAILED:";
const CANCELLED: &str = "CANCELLED";
/// Never seen by others, for whom such a task is queued.
const EXPECTED: &str = "EXPECTED";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) enum Status {
    /// It was assigned, and Planning is expected to say more.
    #[default]
    Expected,
    Queued,
    InProgress,
    Completed,
    /// By this error.
    Failed(String),
    /// In the workflow: nobody is to begin it any more.
    Cancelled,
}

impl fmt::Display for Status {
    /// As others know it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected | Self::Queued => f.write_str(QUEUED),
            Self::InProgress => f.write_str(IN_PROGRESS),
            Self::Completed => f.write_str(COMPLETED),
            Self::Failed(error) => write!(f, "{FAILED}{error}"),
            Self::Cancelled => f.write_str(CANCELLED),
        }
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        match status {
            Status::Expected => EXPECTED.into(),
            status => status.to_string(),
        }
    }
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        match text.as_str() {
            QUEUED => Self::Queued,
            IN_PROGRESS => Self::InProgress,
            COMPLETED => Self::Completed,
            CANCELLED => Self::Cancelled,
            text => match text.strip_prefix(FAILED) {
                Some(error) => Self::Failed(error.into()),
                None => Self::Expected,
            },
        }
    }
}
