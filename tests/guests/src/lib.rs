//! What the fixture guests share: reading their instructions from the event, and telling what they saw. Behaviour
//! belongs to `examples/`, one file each.

use cofferdam_sdk::{Event, Failure, config, publish};
use serde_json::{Value, json};

/// Where a guest publishes: the header `X-To`, else the config value `to`.
pub fn target(event: &Event) -> Result<String, Failure> {
    match event.header("X-To") {
        Some(subject) => Ok(subject.to_owned()),
        None => config::get::<String>("to")?
            .ok_or_else(|| Failure::reject("nowhere to publish: no header X-To and no config value `to`")),
    }
}

/// Publishes what a guest saw.
pub fn report(event: &Event, seen: &Value) -> Result<(), Failure> {
    publish::emit_json(&target(event)?, seen)?;
    Ok(())
}

/// The event's JSON; an empty event is an empty object.
pub fn instructions(event: &Event) -> Result<Value, Failure> {
    if event.data.is_empty() { Ok(Value::Object(serde_json::Map::new())) } else { event.json() }
}

/// A number among the instructions.
pub fn number(instructions: &Value, name: &str, default: u64) -> u64 {
    instructions[name].as_u64().unwrap_or(default)
}

/// `"ok"`, or the error as it prints itself: its kind, a colon, the host's message.
pub fn outcome<T>(result: Result<T, impl ToString>) -> Value {
    match result {
        Ok(_) => Value::from("ok"),
        Err(error) => Value::from(error.to_string()),
    }
}

/// What the workloads of the benchmarks publish: `part` counts the publishes of an event, `count` is what its key has come to.
pub fn bench_output(event: &Value, part: u64, count: u64) -> String {
    json!({ "id": event["id"], "part": part, "count": count, "key": event["key"], "priority": event["priority"] })
        .to_string()
}
