//! Publishes one message of `{"bytes": n}` (default 16 MiB); refused, it publishes the refusal instead.

use cofferdam_sdk::{Event, Failure, publish};
use guest_fixtures::{instructions, number, report, target};
use serde_json::json;

const DEFAULT: u64 = 16 << 20;

fn handle(event: Event) -> Result<(), Failure> {
    let message = vec![b'x'; number(&instructions(&event)?, "bytes", DEFAULT) as usize];
    match publish::emit(&target(&event)?, &message) {
        Ok(_) => Ok(()),
        Err(refused) => report(&event, &json!({ "refused": refused.to_string() })),
    }
}

cofferdam_sdk::export!(handle);
