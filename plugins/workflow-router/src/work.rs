//! What an agent did to a task: section 5.4 of the fleet's contract, in its order.

use cofferdam_sdk::{
    Failure, config, delivery, error,
    fleet::{AgentWork, Incoming},
    info, metrics, state, warn,
};

use crate::{
    dropped,
    machine::{Guard, Machine},
    malformed, settings,
    task::{Act, Applied, KEY, Task},
};

/// A message that was on its way for longer than what came after it is not late yet.
const LATE_MS: u64 = 5_000;
const SHORTEST_FEEDBACK: usize = 10;

/// `agent.work.completed`.
pub(crate) fn completed(message: &Incoming, work: &AgentWork) -> Result<(), Failure> {
    message.keyed_by(&work.task_id).map_err(malformed)?;
    let Some(mut task) = Task::load()? else { return unknown(&work.task_id) };
    let machine = settings::machine()?;
    let (action, role) = names(&machine, work)?;
    if !task.seen.first_time(message) {
        return dropped("duplicate");
    }
    if task.acted_at.is_some_and(|last| last.millis_since(work.timestamp) > LATE_MS) {
        info!("older than what the task has gone through"; task_id = work.task_id, action = action);
        dropped("stale")?;
        return Ok(state::save(KEY, &task)?);
    }
    let act = Act {
        action,
        role,
        agent: work.agent_id.as_deref(),
        feedback: work.feedback.as_deref().map(str::trim),
        at: Some(work.timestamp),
    };
    if !machine.is_by(action, role) {
        warn!("{role} may not do this"; task_id = work.task_id, action = action);
        metrics::count("workflow_rbac_violations", &[])?;
        return Ok(state::save(KEY, &task)?);
    }
    if let Some(why) = refused(&machine, &task, work, action)? {
        warn!("refused: {why}"; task_id = work.task_id, action = action, state = task.state);
        dropped("rejected")?;
        return Ok(state::save(KEY, &task)?);
    }
    match task.apply(&machine, &message.cause(), &act)? {
        Applied::Done => {
            task.acted_at = Some(work.timestamp);
            info!("{action} by {role}"; task_id = task.task_id, story_id = task.story_id, state = task.state);
            Ok(state::save(KEY, &task)?)
        }
        Applied::NotTheirs | Applied::NotHere => too_early(&task, action),
    }
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
fn too_early(task: &Task, action: &str) -> Result<(), Failure> {
    let why = format!("{action} is not possible in state {:?}", task.state);
    if delivery::last_attempt() {
        warn!("{why}"; task_id = task.task_id, action = action);
        return dropped("invalid_action");
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

/// Why it is never going to be possible.
fn refused(
    machine: &Machine,
    task: &Task,
    work: &AgentWork,
    action: &str,
) -> Result<Option<String>, Failure> {
    if task.is_over(machine) {
        return Ok(Some(format!("the task is over, in state {:?}", task.state)));
    }
    let why = match machine.guard(action) {
        Some(Guard::Feedback) => {
            let length = work.feedback.as_deref().unwrap_or_default().trim().chars().count();
            (length < SHORTEST_FEEDBACK).then(|| {
                format!("its feedback has {length} characters, and {SHORTEST_FEEDBACK} are the least")
            })
        }
        Some(Guard::CommitSha) => match &work.commit_sha {
            Some(None) => Some("its artifacts name no commit_sha".to_owned()),
            None if config::get_or("strict_guards", false)? => Some("it has no artifacts".to_owned()),
            Some(Some(_)) | None => None,
        },
        None => None,
    };
    Ok(why)
}
