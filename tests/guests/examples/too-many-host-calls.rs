//! Asks for a config value for ever; or, told `{"calls": n}`, so many times, and publishes the number.

use cofferdam_sdk::{Event, Failure, config};
use guest_fixtures::{instructions, number, report};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let calls = number(&instructions(&event)?, "calls", u64::MAX);
    for _ in 0..calls {
        config::raw("nothing");
    }
    report(&event, &json!({ "calls": calls }))
}

cofferdam_sdk::export!(handle);
