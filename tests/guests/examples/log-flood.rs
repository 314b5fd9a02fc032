//! Writes `{"lines": n, "bytes": each}` of log (default 1,000 lines of 1,000 bytes), then publishes that it is through.

use cofferdam_sdk::{Event, Failure, info};
use guest_fixtures::{instructions, number, report};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let lines = number(&told, "lines", 1_000);
    let text = "x".repeat(number(&told, "bytes", 1_000) as usize);
    for line in 0..lines {
        info!("{text}"; line = line);
    }
    report(&event, &json!({ "lines": lines }))
}

cofferdam_sdk::export!(handle);
