//! Publishes what it reads from the clock, twice, and from the source of randomness.

use cofferdam_sdk::{Event, Failure, clock};
use guest_fixtures::report;
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let seen = json!({
        "event": event.timestamp, "now": [clock::now(), clock::now()],
        "random": [clock::random(16), clock::random(16)], "most": clock::random(1 << 20).len(),
    });
    report(&event, &seen)
}

cofferdam_sdk::export!(handle);
