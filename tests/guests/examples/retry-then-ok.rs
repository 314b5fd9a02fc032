//! Asks for a retry on the first `{"retries": n, "after_ms": optional}` attempts, after it published; then publishes which
//! attempt it was.

use std::time::Duration;

use cofferdam_sdk::{Event, Failure, delivery, publish};
use guest_fixtures::{instructions, number, report, target};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let attempt = delivery::attempt();
    if u64::from(attempt) <= number(&told, "retries", 1) {
        publish::emit(&target(&event)?, "of an attempt that failed")?;
        let reason = format!("attempt {attempt} fails");
        return Err(match told["after_ms"].as_u64() {
            Some(after) => Failure::retry_after(reason, Duration::from_millis(after)),
            None => Failure::retry(reason),
        });
    }
    report(&event, &json!({ "attempt": attempt, "last": delivery::last_attempt() }))
}

cofferdam_sdk::export!(handle);
