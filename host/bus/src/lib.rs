//! The bus: events, subjects, streams, durable consumers, commit points and key-value buckets behind one trait.

mod ahead;
mod api;
mod backlog;
#[cfg(debug_assertions)]
mod broken;
mod change;
mod commit;
mod error;
pub mod local;
mod names;
pub mod nats;
mod outgoing;
pub mod subject;

pub use api::*;
pub use backlog::*;
pub use error::{CommitError, Error};
