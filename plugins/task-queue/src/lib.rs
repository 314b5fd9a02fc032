//! The plugin that queues tasks by priority and dispatches them as what they depend on is completed.

use cofferdam_sdk::{Event, Failure};

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("task-queue has no part in {}; remove the subscription", event.subject)))
}

cofferdam_sdk::export!(handle);
