//! Sets the gauge `waiting` as the event says, `{"sets": [["queue", value], ...]}`, then publishes that it did. It ends as `end`
//! says: `reject`, else well.

use cofferdam_sdk::{Event, Failure, metrics};
use guest_fixtures::{instructions, report};
use serde_json::{Value, json};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    for set in told["sets"].as_array().into_iter().flatten() {
        let queue = set[0].as_str().unwrap_or_default();
        metrics::set("waiting", &[("queue", queue)], set[1].as_f64().unwrap_or(f64::NAN))?;
    }
    let undeclared = metrics::set("seen", &[], 1.0).is_err();
    metrics::count("seen", &[])?;
    report(&event, &json!({ "undeclared": undeclared }))?;
    match told["end"].as_str() {
        Some("reject") => Err(Failure::reject(Value::to_string(&told["sets"]))),
        _ => Ok(()),
    }
}

cofferdam_sdk::export!(handle);
