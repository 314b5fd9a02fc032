//! How this event, or this call, came here.

use std::time::Duration;

use crate::sys;

/// From 1. Of a call always 1, and the last.
pub fn attempt() -> u32 {
    sys::attempt()
}

/// True if a retry now would make the event a dead letter.
pub fn last_attempt() -> bool {
    sys::last_attempt()
}

/// What is left of the time for this event, host calls included.
pub fn deadline() -> Duration {
    Duration::from_millis(sys::deadline_ms())
}

/// The event's order key, if its subscription has one: events of one key run one after another, and
/// [`state`](crate::state) is that key's cell.
pub fn order_key() -> Option<String> {
    sys::order_key()
}
