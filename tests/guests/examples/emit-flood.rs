//! Publishes `{"messages": n}` (default 10,000), each its number. At the first refusal it stops: the event fails, or with
//! `{"tolerate": true}` what came before is kept.

use cofferdam_sdk::{Event, Failure, publish, warn};
use guest_fixtures::{instructions, number, target};

fn handle(event: Event) -> Result<(), Failure> {
    let told = instructions(&event)?;
    let target = target(&event)?;
    for message in 0..number(&told, "messages", 10_000) {
        if let Err(refused) = publish::emit(&target, message.to_string()) {
            warn!("message {message} refused: {refused}");
            if told["tolerate"] != true {
                return Err(refused.into());
            }
            break;
        }
    }
    Ok(())
}

cofferdam_sdk::export!(handle);
