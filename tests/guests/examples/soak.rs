//! The workload of `cargo xtask crash`: a call to the ledger, state under the event's key if it has one, two publishes and a
//! job. The ledger's answer is the number of this run, which all effects carry, so that whoever reads them can tell whether
//! they are of a single run; for a third of the events every second run takes another road than the first.

use std::time::Duration;

use cofferdam_sdk::{Event, Failure, delivery, executor::Job, publish, rpc, state};
use guest_fixtures::instructions;
use serde_json::{Value, json};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let subject = told["subject"].as_str().unwrap_or("none").to_owned();
    // By its place in the stream, which its id ends with.
    let place: u64 = event.id.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    let run = run(place)?;

    let mut seen = json!({ "event": place, "run": run, "attempt": delivery::attempt(), "slot": "" });
    if delivery::order_key().is_some() {
        let count = state::load::<u64>("count")?.unwrap_or(0) + 1;
        let before = state::load::<u64>("last")?.unwrap_or(0);
        state::save("count", &count)?;
        state::save("last", &place)?;
        seen["count"] = count.into();
        seen["before"] = before.into();
    }

    let other_road = place.is_multiple_of(3) && run % 2 == 0;
    let road = if other_road { "b" } else { "a" };
    let mut emit = |slot: &str| {
        seen["slot"] = slot.into();
        seen["mark"] = mark(place, run, slot).into();
        publish::emit_json(&format!("cofferdam.soak.out.{road}.{subject}"), &seen)
    };
    if other_road {
        submit(place, run)?;
        emit("first")?;
        emit("second")?;
    } else {
        emit("first")?;
        submit(place, run)?;
        emit("second")?;
    }
    Ok(())
}

/// What a reader of any message finds by looking for `"mark":"`.
fn mark(place: u64, run: u64, slot: &str) -> String {
    format!("{place}-{run}-{slot}")
}

/// The ledger counts the calls of one key.
fn run(place: u64) -> Result<u64, Failure> {
    let request = json!({ "event": place }).to_string();
    let options = rpc::Options { timeout: Some(Duration::from_secs(2)), ..rpc::Options::default() };
    let answer = rpc::call("ledger", "soak.Ledger/Count", request.as_bytes(), &options)
        .map_err(|status| Failure::retry_after(status.message, Duration::from_millis(200)))?;
    let answer: Value =
        serde_json::from_slice(&answer).map_err(|e| Failure::reject(format!("the ledger's answer: {e}")))?;
    answer["run"].as_u64().ok_or_else(|| Failure::reject(format!("no run in the ledger's answer: {answer}")))
}

fn submit(place: u64, run: u64) -> Result<(), Failure> {
    Job::new(mark(place, run, "job"), "DEV", "Description: do it").agent("soak", "DEV").submit()?;
    Ok(())
}

cofferdam_sdk::export!(handle);
