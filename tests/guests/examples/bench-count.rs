//! The workload of `cargo xtask bench` with state: parses the event, counts it under its key, and publishes the count where
//! the event says; tests/bench/work.rs does the same for the bare loop.

use cofferdam_sdk::{Event, Failure, publish, state};
use guest_fixtures::bench_output;
use serde_json::Value;

fn handle(event: Event) -> Result<(), Failure> {
    let told: Value = event.json()?;
    let count = state::load::<u64>("count")?.unwrap_or(0) + 1;
    state::save("count", &count)?;
    publish::emit(told["to"].as_str().unwrap_or_default(), bench_output(&told, 0, count))?;
    Ok(())
}

cofferdam_sdk::export!(handle);
