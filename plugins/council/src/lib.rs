//! The plugin that lets councils of agents propose, review and revise, and collects what agents answer. What is known of the
//! deliberations over a task is one aggregate, in a cell of its own; how good a proposal is, another stage says.

mod agents;
mod budget;
mod collector;
mod councils;
mod fit;
mod forget;
mod hear;
mod mock;
mod orchestrate;
mod phase;
mod plan;
mod prompt;
mod queue;
mod record;
mod scoring;
mod serve;
mod settings;
mod task;
mod telling;
#[cfg(test)]
mod tests;
mod text;
mod totals;
mod verdict;

use cofferdam_sdk::{
    Event, Failure,
    fleet::{
        AgentResponse, Incoming, Malformed, Outgoing, PlanApproved, QueueReady, StoryTransitioned, Writer,
    },
    metrics,
};
use forget::Forget;
use plan::Requested;
use totals::Ended;

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));

/// One event of any of the plugin's subjects.
fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event).map_err(malformed)?;
    match message.subject() {
        QueueReady::SUBJECT => queue::ready(&message),
        PlanApproved::SUBJECT => plan::approved(&message),
        Requested::SUBJECT => plan::requested(&message),
        StoryTransitioned::SUBJECT => phase::transitioned(&message),
        Ended::SUBJECT => totals::ended(&message),
        Forget::SUBJECT => forget::due(&message),
        AgentResponse::COMPLETED | AgentResponse::FAILED => collector::answered(&message),
        results if results.starts_with(collector::RESULTS) => collector::answered(&message),
        collector::OVERDUE => collector::overdue(&message),
        other => Err(Failure::reject(format!("council has no part in {other}; remove the subscription"))),
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
    Ok(metrics::count("council_dropped", &[("reason", reason)])?)
}

cofferdam_sdk::export!(handle, serve::serve);
