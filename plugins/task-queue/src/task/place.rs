//! Who was there first among equals.

use cofferdam_sdk::fleet::{Incoming, Timestamp};
use serde::{Deserialize, Serialize};

/// When the message was stored that brought a task to wait, in nanoseconds; and its number in its stream, for some buses give
/// several messages one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place(u64, u64);

impl Place {
    pub(crate) fn of(message: &Incoming) -> Self {
        let id = message.cause().event_id;
        let number = id.rsplit('.').next().and_then(|number| number.parse().ok());
        Self(message.arrival().nanos(), number.unwrap_or_default())
    }

    pub(crate) fn time(self) -> Timestamp {
        Timestamp::from_nanos(self.0)
    }
}
