//! The plugin `output-parser`: turns a model's answer into tasks. [`parse`] is the pure part, [`handle`] the rest.

mod amounts;
mod batch;
mod blocks;
mod clean;
mod entry;
mod fields;
mod handler;
mod json;
mod lines;
mod markdown;
mod parse;
mod relaxed;

pub use handler::handle;
pub use parse::{Parsed, Rejection, Settings, parse};

cofferdam_sdk::export!(handle);

#[cfg(test)]
mod tests;
