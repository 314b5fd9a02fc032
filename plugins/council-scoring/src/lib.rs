//! The plugin that judges the proposals of a council, and picks among the best. What it serves only reads: the same question has
//! the same answer. Every check is one pass over a text of bounded length, whatever the text.

mod diff;
mod dryrun;
mod findings;
mod lint;
mod policy;
mod serve;
mod settings;
#[cfg(test)]
mod tests;
mod text;

use cofferdam_sdk::{Event, Failure};
use serve::serve;

/// It subscribes to nothing.
fn handle(event: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("council-scoring has no part in {}; remove the subscription", event.subject)))
}

cofferdam_sdk::export!(handle, serve);
