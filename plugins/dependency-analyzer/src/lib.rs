//! The plugin `dependency-analyzer`: orders the tasks of a derivation, stores them in Planning and ends the derivation.
//! [`analyze`] is the pure part, [`handle`] the rest.

mod analysis;
mod batch;
mod graph;
mod handler;
mod infer;
mod planning;

pub use analysis::{Analysis, Rejection, Settings, Task, analyze};
pub use graph::Edge;
pub use handler::handle;

cofferdam_sdk::export!(handle);

#[cfg(test)]
mod tests;
