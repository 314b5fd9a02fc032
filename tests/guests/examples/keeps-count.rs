//! Counts its events in a static of its own, and publishes the count. Then it ends as the event's `end` says: `reject`, `trap`,
//! `spoil` (well, and the next event of the instance breaks off), else well.
#![allow(clippy::panic, reason = "a guest that traps does so")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cofferdam_sdk::{Event, Failure};
use guest_fixtures::{instructions, report};
use serde_json::json;

static COUNT: AtomicU64 = AtomicU64::new(0);
static SPOILT: AtomicBool = AtomicBool::new(false);

fn handle(event: Event) -> Result<(), Failure> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(!SPOILT.load(Ordering::Relaxed), "an earlier event spoilt it");
    report(&event, &json!({ "count": count, "event": event.id }))?;
    match instructions(&event)?["end"].as_str() {
        Some("reject") => Err(Failure::reject(format!("the count is {count}"))),
        Some("trap") => panic!("the count is {count}"),
        Some("spoil") => {
            SPOILT.store(true, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    }
}

cofferdam_sdk::export!(handle);
