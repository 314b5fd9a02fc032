//! The plugin in the SDK's testing host: what it answers, and that nothing in a proposal is too much for it.

mod checks;
mod hostile;
mod lints;
mod policies;
mod runs;
mod serving;
mod support;
