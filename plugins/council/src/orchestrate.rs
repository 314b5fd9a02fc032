//! The councils as events ask them: with what the council has by default, and the architect's choice in the end.

use cofferdam_sdk::Failure;

use crate::{
    budget::Budget,
    councils::{self, Council},
    hear,
    settings::Settings,
    task::Task,
    verdict::{Choice, Verdict},
};

/// A failure is none of the task's: it is tried again, and a dead letter in the end that can be redriven.
pub(crate) fn event(task: &Task, settings: &Settings) -> Result<Verdict, Failure> {
    if let Some(fault) = task.fault() {
        return Ok(Verdict::without("too_large", fault));
    }
    let Some(council) = councils::find(&task.role, settings)? else {
        return Ok(Verdict::without("no_council", councils::none_for(&task.role, settings)?));
    };
    if let Some(fault) = councils::fault_of_size(council.agents, council.rounds) {
        return Err(Failure::retry(format!("{} as it is configured: {fault}", council.id())));
    }
    let budget = Budget::start(task.timeout_seconds(settings.timeout_seconds));
    let (agents, rounds) = (council.agents, council.rounds);
    ask(task, &council, agents, rounds, &budget, Choice::Architect(settings.architect_k))
}

/// Lets the council deliberate, and finds the winner.
pub(crate) fn ask(
    task: &Task,
    council: &Council,
    agents: u32,
    rounds: u32,
    budget: &Budget,
    choice: Choice,
) -> Result<Verdict, Failure> {
    let heard = hear::hear(task, council, agents, rounds, budget)?;
    Verdict::of(task, council, heard, choice)
}
