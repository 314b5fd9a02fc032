//! Makes calls one after another, told by `{"calls": [{"upstream", "method", "request" (text), "timeout_ms", "anyway"}],
//! "retries"}`: logs how each went, fails as often as it is to, then publishes how they went. With `anyway` a call whose
//! outcome is unknown is made knowingly.

use std::time::Duration;

use cofferdam_sdk::{Event, Failure, delivery, info, rpc};
use guest_fixtures::{instructions, number, report};
use serde_json::{Value, json};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let mut seen = Vec::new();
    for (place, call) in told["calls"].as_array().into_iter().flatten().enumerate() {
        let mut went = make(call, false);
        if went["unknown"] == true && call["anyway"] == true {
            went = make(call, true);
        }
        info!("call {place} went {went}");
        seen.push(went);
    }
    if u64::from(delivery::attempt()) <= number(&told, "retries", 0) {
        return Err(Failure::retry("told to"));
    }
    report(&event, &json!({ "attempt": delivery::attempt(), "calls": seen }))
}

fn make(call: &Value, repeat: bool) -> Value {
    let text = |name: &str| call[name].as_str().unwrap_or_default();
    let timeout = call["timeout_ms"].as_u64().map(Duration::from_millis);
    let options = rpc::Options { timeout, repeat, ..rpc::Options::default() };
    match rpc::call(text("upstream"), text("method"), text("request").as_bytes(), &options) {
        // An answer as long as that is told by its length.
        Ok(answer) if answer.len() > 1024 => json!({ "bytes": answer.len() }),
        Ok(answer) => json!({ "answer": String::from_utf8_lossy(&answer) }),
        Err(status) => json!({
            "code": status.code.to_string(), "message": status.message, "local": status.local,
            "unknown": status.is_outcome_unknown(),
        }),
    }
}

cofferdam_sdk::export!(handle);
