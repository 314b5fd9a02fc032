//! The plugin `plan-reader`: a strategy of task derivation that asks no model. It stands in prompt-builder's place, opens
//! derivations on the same triggers, and reads the tasks that the plan itself lists.

mod handler;
mod structure;
mod yaml;

pub use handler::handle;

cofferdam_sdk::export!(handle);

#[cfg(test)]
mod tests;
