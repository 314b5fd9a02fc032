//! How long things are remembered. The promises of delivery rest on it and all hosts have to agree, so that it is in no
//! configuration file; tests make it shorter.

use std::time::Duration;

/// See the fields; the rest follows from them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How old the confirmation of a floor may be when a record is written by it; the write is to reach the server within as
    /// long again.
    pub lease: Duration,
    /// How long a message of an inbox is kept at least.
    pub inbox: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { lease: Duration::from_secs(30), inbox: Duration::from_secs(24 * 60 * 60) }
    }
}

impl Timing {
    /// How often floors are asked for, and persisted if they moved: 2 s. A cell remembers a few bytes per event settled since;
    /// at 10,000 events/s for one key, 20,000 would have gone by.
    pub(super) fn floors(&self) -> Duration {
        self.lease / 15
    }

    /// From when it is known that nobody needs a thing until it is deleted: a lease that began just before, a write that takes
    /// as long, and one for clocks that run at different speeds.
    pub(super) fn forget(&self) -> Duration {
        self.lease * 3
    }

    /// How often it is looked for what nobody follows any more: 10 minutes.
    pub(super) fn sweep(&self) -> Duration {
        self.lease * 20
    }

    /// How long after its commit a message can be missed in an inbox and not have been there: an hour less than it is kept.
    pub(super) fn trusted(&self) -> Duration {
        self.inbox - self.inbox / 24
    }
}
