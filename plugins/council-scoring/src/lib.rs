//! The plugin that judges the proposals of a council, and picks among the best.

use cofferdam_sdk::{Event, Failure};

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    Err(Failure::reject(format!("council-scoring has no part in {}; remove the subscription", event.subject)))
}

cofferdam_sdk::export!(handle);
