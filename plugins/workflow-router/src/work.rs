//! `agent.work.completed`: what an agent did to a task, as far as the message goes; what becomes of it is in `action`.

use cofferdam_sdk::{
    Failure, delivery, error,
    fleet::{AgentWork, Incoming, Timestamp},
    info, warn,
};

use crate::{
    action::{self, Outcome},
    dropped, feedback,
    machine::Machine,
    malformed, settings,
    task::{Act, Task},
};

/// A message that was on its way for longer than what came after it is not late yet.
const LATE_MS: u64 = 5_000;

pub(crate) fn completed(message: &Incoming, work: &AgentWork) -> Result<(), Failure> {
    message.keyed_by(&work.task_id).map_err(malformed)?;
    let Some(mut task) = Task::load()? else { return unknown(&work.task_id) };
    let machine = settings::machine()?;
    let (action, role) = names(&machine, work)?;
    if !task.seen.first_time(message) {
        return dropped("duplicate");
    }
    if is_stale(&task, work.timestamp) {
        info!("older than what the task has gone through"; task_id = work.task_id, action = action);
        dropped("stale")?;
        return task.remember();
    }
    let feedback = work.feedback.as_deref().map(feedback::kept);
    let act = Act {
        action,
        role,
        agent: work.agent_id.as_deref(),
        feedback: feedback.as_deref(),
        artifacts: work.artifacts.as_ref(),
        at: Some(work.timestamp),
    };
    match action::take(&mut task, &machine, &act)? {
        Outcome::Accepted => task.save(&machine, &message.cause()),
        Outcome::Violation => task.remember(),
        Outcome::Rejected(_) => {
            dropped("rejected")?;
            task.remember()
        }
        Outcome::NotNow(why) => too_early(&task, action, why),
    }
}

fn is_stale(task: &Task, timestamp: Timestamp) -> bool {
    task.acted_at.is_some_and(|last| last.millis_since(timestamp) > LATE_MS)
}

/// It may be on its way: another message opens it.
fn unknown(task_id: &str) -> Result<(), Failure> {
    let why = format!("no workflow is open for task {task_id:?}");
    if delivery::last_attempt() {
        error!("{why}"; task_id = task_id);
        dropped("unknown_task")?;
        return Err(Failure::reject(why));
    }
    Err(Failure::retry(why))
}

/// Out of its order, perhaps: what comes before it may still come.
fn too_early(task: &Task, action: &str, why: String) -> Result<(), Failure> {
    if delivery::last_attempt() {
        warn!("{why}"; task_id = task.task_id, action = action);
        dropped("invalid_action")?;
        return task.remember();
    }
    Err(Failure::retry(why))
}

/// Action and role as the machine calls them.
fn names<'a>(machine: &'a Machine, work: &AgentWork) -> Result<(&'a str, &'a str), Failure> {
    let wrong = |what: &str, name: &Option<String>| {
        let told = match name {
            Some(name) => format!("the {what} {name:?} is none of the workflow's"),
            None => format!("it has no {what}"),
        };
        dropped("malformed").map_or_else(|failure| failure, |()| Failure::reject(told))
    };
    let action = work.action.as_deref().and_then(|name| machine.action(name));
    let action = action.ok_or_else(|| wrong("action", &work.action))?;
    let role = work.actor_role.as_deref().and_then(|name| machine.role(name));
    let role = role.ok_or_else(|| wrong("role", &work.actor_role))?;
    Ok((action, role))
}
