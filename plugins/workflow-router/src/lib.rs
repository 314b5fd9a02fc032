//! The plugin that opens a workflow for each task, assigns it, and moves it on as its agents tell what they did. A task, a story
//! and a board of tasks are an aggregate each, in a cell of its own; what one has to know of the other it learns by an event.

mod action;
mod board;
mod feedback;
mod figures;
mod machine;
mod own;
mod serve;
mod settings;
mod story;
mod task;
#[cfg(test)]
mod tests;
mod work;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{
        AgentWork, DerivationCompleted, Incoming, Malformed, Outgoing, StoryTransitioned, TaskCreated, Writer,
    },
    metrics,
};
use own::{Moved, Open, Opened, Picture};
use serve::serve;

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event).map_err(malformed)?;
    match message.subject() {
        TaskCreated::SUBJECT => task::created(&message, TaskCreated::read(&message).map_err(malformed)?),
        Open::SUBJECT => task::open(&message, Open::read(&message).map_err(malformed)?),
        AgentWork::SUBJECT => work::completed(&message, &AgentWork::read(&message).map_err(malformed)?),
        StoryTransitioned::SUBJECT => {
            story::transitioned(&message, &StoryTransitioned::read(&message).map_err(malformed)?)
        }
        DerivationCompleted::SUBJECT => {
            story::derived(&message, &DerivationCompleted::read(&message).map_err(malformed)?)
        }
        Opened::SUBJECT => story::opened(&message, &Opened::read(&message).map_err(malformed)?),
        Moved::SUBJECT => story::moved(&message, &Moved::read(&message).map_err(malformed)?),
        Picture::SUBJECT => board::learn(&message, Picture::read(&message).map_err(malformed)?),
        other => {
            Err(Failure::reject(format!("workflow-router has no part in {other}; remove the subscription")))
        }
    }
}

/// A message that can't be what its subject says is counted, and becomes a dead letter.
fn malformed(malformed: Malformed) -> Failure {
    match dropped("malformed") {
        Ok(()) => malformed.into(),
        Err(failure) => failure,
    }
}

fn dropped(reason: &str) -> Result<(), Failure> {
    Ok(metrics::count("workflow_dropped", &[("reason", reason)])?)
}

cofferdam_sdk::export!(handle, serve);
