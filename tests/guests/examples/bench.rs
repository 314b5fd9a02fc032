//! The workload of `cargo xtask bench` without state: parses the event and publishes once, or ten times. The event says
//! which, and where to; tests/bench/work.rs does the same for the bare loop.

use cofferdam_sdk::{Event, Failure, publish};
use guest_fixtures::bench_output;
use serde_json::Value;

const FAN: u64 = 10;

fn handle(event: Event) -> Result<(), Failure> {
    let told: Value = event.json()?;
    let to = told["to"].as_str().unwrap_or_default();
    let parts = match told["work"].as_str() {
        Some("publish") => 1,
        Some("fan") => FAN,
        other => return Err(Failure::reject(format!("no work is called {other:?}"))),
    };
    for part in 0..parts {
        publish::emit(to, bench_output(&told, part, 0))?;
    }
    Ok(())
}

cofferdam_sdk::export!(handle);
