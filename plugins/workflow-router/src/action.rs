//! What becomes of an action, by whichever way it comes: section 5.4 of the fleet's contract, from rights to acceptance, in its
//! order.

use cofferdam_sdk::{Failure, config, fleet::Timestamp, info, metrics, warn};

use crate::{
    machine::{Guard, Machine, SYSTEM},
    task::{Act, Applied, Task},
};

const SHORTEST_FEEDBACK: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The action is never this role's.
    Violation,
    /// It is never going to be possible, and why.
    Rejected(String),
    /// Not in this state, and why. Perhaps it is early.
    NotNow(String),
    Accepted,
}

/// Does to the task what it says, if it is accepted.
pub(crate) fn take(task: &mut Task, machine: &Machine, act: &Act<'_>) -> Result<Outcome, Failure> {
    let Act { action, role, .. } = *act;
    if !machine.is_by(action, role) {
        warn!("{role} may not do this"; task_id = task.task_id, action = action);
        metrics::count("workflow_rbac_violations", &[])?;
        return Ok(Outcome::Violation);
    }
    if let Some(why) = refused(machine, task, act)? {
        warn!("refused: {why}"; task_id = task.task_id, action = action, state = task.state);
        return Ok(Outcome::Rejected(why));
    }
    let hops = task.hops;
    match task.apply(machine, act) {
        Applied::Done => {
            if task.hops > hops && role != SYSTEM {
                // One agent's fast clock must not make everybody else's work stale.
                task.acted_at = act.at.map(|at| at.min(Timestamp::now()));
            }
            info!("{action} by {role}"; task_id = task.task_id, story_id = task.story_id, state = task.state);
            Ok(Outcome::Accepted)
        }
        Applied::NotTheirs | Applied::NotHere => {
            Ok(Outcome::NotNow(format!("{action} by {role} is not possible in state {:?}", task.state)))
        }
    }
}

/// Why it is never going to be possible.
fn refused(machine: &Machine, task: &Task, act: &Act<'_>) -> Result<Option<String>, Failure> {
    if task.is_over(machine) {
        return Ok(Some(format!("the task is over, in state {:?}", task.state)));
    }
    let why = match machine.guard(act.action) {
        Some(Guard::Feedback) => {
            let length = act.feedback.unwrap_or_default().trim().chars().count();
            (length < SHORTEST_FEEDBACK).then(|| {
                format!("its feedback has {length} characters, and {SHORTEST_FEEDBACK} are the least")
            })
        }
        Some(Guard::CommitSha) => match act.artifacts {
            Some(artifacts) => {
                artifacts.commit_sha.is_none().then(|| "its artifacts name no commit_sha".to_owned())
            }
            None => {
                let strict: bool = config::get_or("strict_guards", false)?;
                strict.then(|| "it has no artifacts".to_owned())
            }
        },
        None => None,
    };
    Ok(why)
}
