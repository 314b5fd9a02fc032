//! Publishes the event's data, with its headers but the host's own, to the header `X-To` or the config value `to`.

use cofferdam_sdk::{Event, Failure, publish};
use guest_fixtures::target;

fn handle(event: Event) -> Result<(), Failure> {
    let host_owned = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("nats-") || name.starts_with("cofferdam-") || name == "x-to"
    };
    let headers: Vec<_> = event.headers.iter().filter(|(name, _)| !host_owned(name)).cloned().collect();
    publish::emit_with(&target(&event)?, &headers, &event.data)?;
    Ok(())
}

cofferdam_sdk::export!(handle);
