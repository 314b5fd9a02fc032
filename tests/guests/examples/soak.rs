//! The workload of `cargo xtask crash`: two calls to the ledger, state under the event's key if it has one, two publishes and
//! a job. The first call's answer is the number of this run, which all effects carry, so that whoever reads them can tell
//! whether they are of a single run; for a third of the events every second run takes another road than the first. The second
//! is a `once` call. The event's fate says whether its first attempt fails, it is rejected, or it sets a timer as well.

use std::time::Duration;

use cofferdam_sdk::{Event, Failure, clock, delivery, executor::Job, publish, rpc, state};
use guest_fixtures::instructions;
use serde_json::{Value, json};

const LATER: u64 = 1_500_000_000;

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let subject = told["subject"].as_str().unwrap_or("none").to_owned();
    let fate = told["fate"].as_str().unwrap_or_default();
    // By its place in the stream, which its id ends with.
    let place: u64 = event.id.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    let run = ask("Run", place)?;
    let answer = ask("Count", place)?;

    let mut seen =
        json!({ "event": place, "run": run, "answer": answer, "attempt": delivery::attempt(), "slot": "" });
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
    let mut note = |slot: &str| {
        seen["slot"] = slot.into();
        seen["mark"] = mark(place, run, slot).into();
        (format!("cofferdam.story.soak.{road}.{subject}"), seen.clone())
    };
    let mut emit = |slot: &str| {
        let (subject, message) = note(slot);
        publish::emit_json(&subject, &message)
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
    match fate {
        "later" => {
            let (subject, message) = note("later");
            publish::schedule_json(clock::now() + LATER, &subject, &message)?;
        }
        // With all its effects, which must come to nothing.
        "retry" if delivery::attempt() == 1 => return Err(Failure::retry("as told")),
        "reject" => return Err(Failure::reject("as told")),
        _ => {}
    }
    Ok(())
}

/// What a reader of any message finds by looking for `"mark":"`.
fn mark(place: u64, run: u64, slot: &str) -> String {
    format!("{place}-{run}-{slot}")
}

/// The ledger counts the runs of an event, and the `once` calls of one key.
fn ask(method: &str, place: u64) -> Result<u64, Failure> {
    let request = json!({ "event": place }).to_string();
    let options = rpc::Options { timeout: Some(Duration::from_secs(2)), ..rpc::Options::default() };
    let answer = rpc::call("ledger", &format!("soak.Ledger/{method}"), request.as_bytes(), &options)
        .map_err(|status| Failure::retry_after(status.message, Duration::from_millis(200)))?;
    let answer: Value =
        serde_json::from_slice(&answer).map_err(|e| Failure::reject(format!("the ledger's answer: {e}")))?;
    answer["count"]
        .as_u64()
        .ok_or_else(|| Failure::reject(format!("no count in the ledger's answer: {answer}")))
}

fn submit(place: u64, run: u64) -> Result<(), Failure> {
    Job::new(mark(place, run, "job"), "DEV", "Description: do it").agent("soak", "DEV").submit()?;
    Ok(())
}

cofferdam_sdk::export!(handle);
