//! The plugin that tells Context what deliberations decided and what a person said to it, and the fleet that the context of a
//! story has changed. What Context makes of it is Context's business.

mod context;
mod events;
mod settings;
#[cfg(test)]
mod tests;
mod update;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{
        DecisionApproved, DecisionRejected, DeliberationCompleted, Incoming, Malformed, Outgoing, Writer,
    },
    metrics,
};

const NAME: &str = env!("CARGO_PKG_NAME");
const WRITER: Writer = Writer::new(NAME);

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event).map_err(malformed)?;
    match message.subject() {
        DeliberationCompleted::SUBJECT => {
            events::decided(&message, DeliberationCompleted::read(&message).map_err(malformed)?)
        }
        DecisionApproved::SUBJECT => {
            events::approved(&message, DecisionApproved::read(&message).map_err(malformed)?)
        }
        DecisionRejected::SUBJECT => {
            events::rejected(&message, DecisionRejected::read(&message).map_err(malformed)?)
        }
        other => {
            Err(Failure::reject(format!("context-updater has no part in {other}; remove the subscription")))
        }
    }
}

/// A message that can't be what its subject says is counted, and becomes a dead letter.
fn malformed(malformed: Malformed) -> Failure {
    lost("malformed", malformed.into())
}

/// The failure of a message that Context never gets, counted.
fn lost(reason: &str, failure: Failure) -> Failure {
    dropped(reason).err().unwrap_or(failure)
}

fn dropped(reason: &str) -> Result<(), Failure> {
    Ok(metrics::count("context_dropped", &[("reason", reason)])?)
}

cofferdam_sdk::export!(handle);
