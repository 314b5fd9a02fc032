//! The message that a handler is called with.

use serde::de::DeserializeOwned;

use crate::{Failure, Pairs};

/// One message of a subject that the plugin subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique and stable over redeliveries: `<origin>.<stream sequence>`.
    pub id: String,
    pub subject: String,
    /// In the order of the message; a name may repeat.
    pub headers: Pairs,
    /// At most the host's payload limit (default 1 MiB).
    pub data: Vec<u8>,
    /// When the stream stored the message: nanoseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
}

impl Event {
    /// The first header of that name, upper and lower case being the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The data read as JSON; what is not of that shape is rejected, for it never will be.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.data).map_err(|error| {
            Failure::reject(format!("the message on {} can't be read: {error}", self.subject))
        })
    }
}
