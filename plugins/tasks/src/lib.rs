//! Tasks in text: what models answer and people write, read into normalised tasks. Pure code, shared by the plugins that
//! read tasks and by the one that stores them; nothing here knows of events, state or a host.
//!
//! [`parse()`] reads a model's answer as a whole. The readers that it tries ([`json`], [`blocks`], [`markdown`]) give
//! [`Entry`]s, raw values by key, and [`settle`] makes tasks of those.

mod amounts;
mod batch;
pub mod blocks;
mod clean;
mod entry;
mod fields;
mod held;
pub mod json;
mod lines;
pub mod markdown;
mod parse;
mod relaxed;
pub mod titles;

pub use batch::settle;
pub use clean::{clean, plain};
pub use entry::{Entry, Key};
pub use fields::DEFAULT_ROLE;
pub use lines::{is_fence, names_task};
pub use parse::{Parsed, Rejection, Settings, parse};

#[cfg(test)]
mod tests;
