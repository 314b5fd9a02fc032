//! The plugin that keeps where each story is: it moves a story on by what happens to its plan and its tasks, and as it is told to, and
//! tells of each step. A story is one aggregate, in a cell of its own.

mod events;
mod machine;
mod service;
mod settings;
mod story;
#[cfg(test)]
mod tests;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{
        DerivationCompleted, Incoming, Malformed, Outgoing, StateChanged, StoryCreated, StoryTasksCompleted,
        StoryTransitioned, TaskCreated, Writer,
    },
    metrics,
};

const NAME: &str = env!("CARGO_PKG_NAME");
const WRITER: Writer = Writer::new(NAME);

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event).map_err(malformed)?;
    match message.subject() {
        StoryCreated::SUBJECT => events::created(&message, StoryCreated::read(&message).map_err(malformed)?),
        StoryTransitioned::SUBJECT => {
            events::transitioned(&message, &StoryTransitioned::read(&message).map_err(malformed)?)
        }
        TaskCreated::SUBJECT => {
            events::task_created(&message, &TaskCreated::read(&message).map_err(malformed)?)
        }
        DerivationCompleted::SUBJECT => {
            events::derived(&message, &DerivationCompleted::read(&message).map_err(malformed)?)
        }
        StateChanged::SUBJECT => events::task_moved(&message),
        StoryTasksCompleted::SUBJECT => events::through(&message),
        other => {
            Err(Failure::reject(format!("story-lifecycle has no part in {other}; remove the subscription")))
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
    Ok(metrics::count("story_dropped", &[("reason", reason)])?)
}

cofferdam_sdk::export!(handle, service::serve);
