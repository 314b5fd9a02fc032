//! The plugin that queues tasks by priority and dispatches them as what they depend on is completed. A task is an aggregate in a
//! cell of its own, and so is the queue; they learn of each other by events.

mod own;
mod queue;
mod serve;
mod settings;
mod task;
#[cfg(test)]
mod tests;
mod texts;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{
        AgentResponse, Incoming, Malformed, Outgoing, QueueDeliberated, TaskAssigned, TaskCompleted,
        TaskCreated, Writer,
    },
    metrics,
};
use own::{Changed, Go, Overdue, Unexplained};
use serve::serve;

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event).map_err(malformed)?;
    match message.subject() {
        TaskCreated::SUBJECT => task::created(&message, &TaskCreated::read(&message).map_err(malformed)?),
        <TaskAssigned as Outgoing>::SUBJECT => {
            task::assigned(&message, &TaskAssigned::read(&message).map_err(malformed)?)
        }
        Unexplained::SUBJECT => task::unexplained(&message, &own::read(&message).map_err(malformed)?),
        Go::SUBJECT => task::go(&message, &own::read(&message).map_err(malformed)?),
        QueueDeliberated::SUBJECT => {
            task::deliberated(&message, &QueueDeliberated::read(&message).map_err(malformed)?)
        }
        Overdue::SUBJECT => task::overdue(&message, &own::read(&message).map_err(malformed)?),
        AgentResponse::COMPLETED | AgentResponse::FAILED => {
            task::answered(&message, &AgentResponse::read(&message))
        }
        <TaskCompleted as Outgoing>::SUBJECT => task::over(&message),
        Changed::SUBJECT => queue::changed(&message, &own::read(&message).map_err(malformed)?),
        other => Err(Failure::reject(format!("task-queue has no part in {other}; remove the subscription"))),
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
    Ok(metrics::count("task_queue_dropped", &[("reason", reason)])?)
}

cofferdam_sdk::export!(handle, serve);
