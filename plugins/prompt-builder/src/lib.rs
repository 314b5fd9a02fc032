//! The plugin that opens task derivations and asks a model for them: one open derivation per plan, its prompt, its attempts
//! and their time-outs, and its end if it fails. What an answer means is for output-parser, what becomes of its tasks for
//! dependency-analyzer.

mod compose;
mod due;
mod own;
mod prompt;
mod retry;
mod settings;
mod submit;
#[cfg(test)]
mod tests;
mod trigger;
mod turn;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{DerivationRejected, DerivationTimeout, Incoming, Outgoing},
};
use fleet_derivation::{Request, Strategy};
use own::{Due, Queued};

const STRATEGY: Strategy = Strategy::new(env!("CARGO_PKG_NAME"));

/// One event of any of the plugin's subjects.
pub fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event)?;
    if let Some(request) = Request::read(&message)? {
        return trigger::handle(&message, &request);
    }
    match message.subject() {
        Queued::SUBJECT => turn::handle(&message, &Queued::read(&message)?),
        Due::SUBJECT => due::handle(&message, &Due::read(&message)?),
        DerivationRejected::SUBJECT => retry::rejected(&message, &DerivationRejected::read(&message)?),
        DerivationTimeout::SUBJECT => retry::timed_out(&message, &DerivationTimeout::read(&message)?),
        other => {
            Err(Failure::reject(format!("prompt-builder has no part in {other}; remove the subscription")))
        }
    }
}

cofferdam_sdk::export!(handle);
