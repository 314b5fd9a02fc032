//! An in-memory host for native unit tests of plugins. It behaves as `wit/plugin.wit` says: limits and denials are
//! typed errors, effects and writes to state are kept only if the handler succeeds. It stands for the host alone;
//! bus and upstreams are for the end-to-end tests.
//!
//! ```
//! use cofferdam_sdk::{Event, Failure, state, testing::{Host, event}};
//!
//! fn handle(_: Event) -> Result<(), Failure> {
//!     let seen: u32 = state::load("seen")?.unwrap_or(0);
//!     state::save("seen", &(seen + 1))?;
//!     if seen > 0 { Err(Failure::reject("once is enough")) } else { Ok(()) }
//! }
//!
//! let mut host = Host::new().order_key("a");
//! assert!(host.run(handle, event("x", "{}")).result.is_ok());
//! assert!(host.run(handle, event("x", "{}")).result.is_err());
//! assert_eq!(host.value::<u32>("a", "seen"), Some(1));
//! ```

mod cells;
mod host;
#[cfg(test)]
mod inferring;
mod job_limits;
mod jobs;
mod limits;
mod manifest;
mod models;
mod request;
mod run;
mod script;
mod served;
#[cfg(test)]
mod serving;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

pub use cells::Cells;
pub use host::Host;
pub use request::{Request, call};
pub use run::{Call, LogLine, Metric, Published, Run, Scheduled, Submitted};
pub use script::Rpc;
pub use served::Served;

use crate::{Event, rpc::Code, rpc::Status};

/// 2026-01-01T00:00:00Z, when the first event of a test happens; each further event is a second later.
pub const EPOCH: u64 = 1_767_225_600_000_000_000;

/// An event as the host would hand it over, with an id and a second of its own.
pub fn event(subject: &str, data: impl ToString) -> Event {
    let (id, timestamp) = next();
    Event { id, subject: subject.into(), headers: Vec::new(), data: data.to_string().into_bytes(), timestamp }
}

/// An id and a second that no other event and no call of the test has.
fn next() -> (String, u64) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (format!("test.{number}"), EPOCH + number * 1_000_000_000)
}

/// What a host answers to a call that it refuses itself.
pub fn refused(code: Code, message: impl Into<String>) -> Status {
    Status { code, message: message.into(), local: true }
}
