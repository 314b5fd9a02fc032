//! The plugin `output-parser`: turns a model's answer into tasks. What a text means is for the crate `fleet-tasks`.

mod handler;

pub use handler::handle;

cofferdam_sdk::export!(handle);

#[cfg(test)]
mod tests;
