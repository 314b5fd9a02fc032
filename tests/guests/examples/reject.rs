//! Rejects the event after it published: the event's data is the reason.

use cofferdam_sdk::{Event, Failure, publish};
use guest_fixtures::target;

fn handle(event: Event) -> Result<(), Failure> {
    if let Ok(target) = target(&event) {
        publish::emit(&target, "of an event that was rejected")?;
    }
    Err(Failure::reject(String::from_utf8_lossy(&event.data)))
}

cofferdam_sdk::export!(handle);
