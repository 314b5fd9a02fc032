//! Time and randomness that are the same on every run of an event.

use crate::sys;

/// Nanoseconds since 1970-01-01T00:00:00Z: the event's time plus one microsecond per reading.
pub fn now() -> u64 {
    sys::now()
}

/// Bytes seeded by the event's id; at most 64 KiB a call, less are returned past that.
pub fn random(len: u32) -> Vec<u8> {
    sys::random(len)
}
