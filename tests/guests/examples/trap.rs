//! Panics, after it published: the event's data is the message.
#![allow(clippy::panic, reason = "that is what this guest is for")]

use cofferdam_sdk::{Event, Failure, publish};
use guest_fixtures::target;

fn handle(event: Event) -> Result<(), Failure> {
    if let Ok(target) = target(&event) {
        publish::emit(&target, "of a run that panicked")?;
    }
    panic!("{}", String::from_utf8_lossy(&event.data));
}

cofferdam_sdk::export!(handle);
