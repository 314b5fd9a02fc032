//! The bus: events, subjects, streams, durable consumers, commit points and key-value buckets behind one trait.

mod api;
mod error;
pub mod nats;
pub mod subject;

pub use api::*;
pub use error::{CommitError, Error};
