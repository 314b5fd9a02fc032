//! The plugin that lets councils of agents propose, review and revise, and collects what agents answer.

use cofferdam_sdk::{Event, Failure};

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("council has no part in {}; remove the subscription", event.subject)))
}

cofferdam_sdk::export!(handle);
