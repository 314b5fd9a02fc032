//! The plugin that opens task derivations: one open derivation per plan, its prompt, its attempts, and its end if it
//! fails. What an answer means is for output-parser, what becomes of its tasks for dependency-analyzer.

mod compose;
mod ending;
mod prompt;
mod retry;
mod settings;
mod submit;
#[cfg(test)]
mod tests;
mod trigger;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{DerivationRejected, DerivationRequested, Incoming, Outgoing, PlanApproved, Writer},
};

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event)?;
    match message.subject() {
        PlanApproved::SUBJECT => trigger::handle(&message, PlanApproved::read(&message)?.into()),
        DerivationRequested::SUBJECT => {
            trigger::handle(&message, DerivationRequested::read(&message)?.into())
        }
        DerivationRejected::SUBJECT => retry::handle(&message, &DerivationRejected::read(&message)?),
        other => {
            Err(Failure::reject(format!("prompt-builder has no part in {other}; remove the subscription")))
        }
    }
}

cofferdam_sdk::export!(handle);
