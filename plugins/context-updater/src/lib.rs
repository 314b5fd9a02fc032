//! The plugin that tells Context what deliberations decided.

use cofferdam_sdk::{Event, Failure};

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("context-updater has no part in {}; remove the subscription", event.subject)))
}

cofferdam_sdk::export!(handle);
