//! Publishes the config values of `{"keys": [...]}`, as the host gives them.

use cofferdam_sdk::{Event, Failure, config};
use guest_fixtures::{instructions, report};
use serde_json::{Map, Value};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let mut seen = Map::new();
    for key in told["keys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        seen.insert(key.to_owned(), config::get::<Value>(key)?.unwrap_or(Value::Null));
    }
    report(&event, &Value::Object(seen))
}

cofferdam_sdk::export!(handle);
