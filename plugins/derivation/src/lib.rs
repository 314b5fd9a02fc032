//! What the strategies of task derivation have in common: prompt-builder, which asks a model, and plan-reader, which reads a
//! structured plan. They follow the same triggers, ask Planning the same, open and fail the same record, and never leave one
//! open for good. How tasks are found is theirs.

mod ending;
mod guard;
mod plan;
mod request;

use cofferdam_sdk::fleet::Writer;

pub use ending::Trouble;
pub use guard::{STORING_SECONDS, is_guarded, over};
pub use plan::plan;
pub use request::{Opening, Request};

/// A plugin that opens derivations and fails them.
#[derive(Debug, Clone, Copy)]
pub struct Strategy {
    name: &'static str,
    pub writer: Writer,
}

impl Strategy {
    /// `Strategy::new(env!("CARGO_PKG_NAME"))`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, writer: Writer::new(name) }
    }
}
