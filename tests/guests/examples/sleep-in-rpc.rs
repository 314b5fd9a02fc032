//! Calls an upstream, told by `{"upstream", "method", "request" (text), "timeout_ms"}`, and publishes how that went.

use std::time::Duration;

use cofferdam_sdk::{Event, Failure, rpc};
use guest_fixtures::{instructions, report};
use serde_json::json;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let options = rpc::Options {
        timeout: told["timeout_ms"].as_u64().map(Duration::from_millis),
        ..rpc::Options::default()
    };
    let seen = match rpc::call(text("upstream"), text("method"), text("request").as_bytes(), &options) {
        Ok(answer) => json!({ "bytes": answer.len() }),
        Err(status) => json!({
            "code": status.code.to_string(), "message": status.message, "local": status.local,
        }),
    };
    report(&event, &seen)
}

cofferdam_sdk::export!(handle);
