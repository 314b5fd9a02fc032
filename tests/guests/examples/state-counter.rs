//! Counts the events of each order key in its cell, and publishes the count.

use cofferdam_sdk::{Event, Failure, delivery, state};
use guest_fixtures::report;
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let count = state::load::<u64>("count")?.unwrap_or(0) + 1;
    state::save("count", &count)?;
    report(&event, &json!({ "key": delivery::order_key(), "count": count, "event": event.id }))
}

cofferdam_sdk::export!(handle);
