//! What a task tells of itself: its picture to its board first, then what happened to it, in order; and a timer where it must
//! not wait for long.

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, StateChanged, TaskAssigned, TaskCompleted, TaskWaiting, ValidationRequired},
    metrics,
    publish::{self, EmitError},
    warn,
};

use super::Task;
use crate::{
    WRITER, board,
    machine::Machine,
    own::{Moved, Opened, Picture},
};

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Changed(StateChanged),
    Assigned(TaskAssigned),
    Validation(ValidationRequired),
    Completed(TaskCompleted),
    Opened(Opened),
    Moved(Moved),
}

impl Task {
    /// What has happened since the task was loaded.
    pub(super) fn tell(&mut self, machine: &Machine, cause: &Cause) -> Result<(), Failure> {
        let told = std::mem::take(&mut self.told);
        self.version += 1;
        // Whoever hears of the rest and asks the boards should find it there, so they hear first.
        granted(WRITER.emit(cause, &self.picture(machine), &format!("board:{}", self.version)))?;
        let hops = told.iter().filter(|told| matches!(told, Told::Changed(_))).count() as u64;
        // Two moves of one task may have the same names; their number tells them apart.
        let count = self.hops;
        let mut hop = count - hops;
        for told in told {
            match told {
                Told::Changed(changed) => {
                    hop += 1;
                    WRITER.emit(cause, &changed, &format!("state_changed:{hop}"))?;
                    metrics::count("workflow_transitions", &[])?;
                }
                Told::Assigned(assigned) => {
                    WRITER.emit(cause, &assigned, &format!("assigned:{count}")).map(drop)?;
                }
                Told::Validation(required) => {
                    WRITER.emit(cause, &required, &format!("validation:{count}")).map(drop)?;
                }
                Told::Completed(completed) => WRITER.emit(cause, &completed, "completed").map(drop)?,
                Told::Opened(opened) => WRITER.emit(cause, &opened, "opened").map(drop)?,
                Told::Moved(moved) => WRITER.emit(cause, &moved, &format!("moved:{count}")).map(drop)?,
            }
        }
        if hops > 0 { self.watch(machine, cause) } else { Ok(()) }
    }

    fn picture(&self, machine: &Machine) -> Picture {
        Picture {
            board: board::number(&self.task_id),
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            state: self.state.clone(),
            ended: machine.end(&self.state),
            since: self.since().unix_seconds(),
            priority: self.priority,
            claimed_by: self.claimed_by.clone(),
            commit_sha: self.work.as_ref().and_then(|work| work.commit_sha.clone()),
            version: self.version,
            figures: self.figures,
        }
    }

    /// It has left where it rested, so nobody is told of that any more, but perhaps of where it rests now.
    fn watch(&mut self, machine: &Machine, cause: &Cause) -> Result<(), Failure> {
        if let Some(timer) = self.alert.take() {
            match publish::cancel(&timer) {
                // Set under another name of the plugin: it fires, and that is all.
                Err(EmitError::Denied(why)) => warn!("an alert can't be taken back: {why}"; timer = timer),
                cancelled => cancelled?,
            }
        }
        let Some(state) = machine.state(&self.state) else { return Ok(()) };
        let Some(seconds) = state.alert_after_seconds.filter(|_| state.ends.is_none()) else { return Ok(()) };
        let due = self.since().plus_seconds(seconds);
        let waiting = TaskWaiting {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            plan_id: self.plan_id.clone(),
            state: state.name.clone(),
            role_in_charge: state.duty.as_ref().map(|duty| duty.role.clone()).unwrap_or_default(),
            waiting_seconds: seconds,
            timestamp: due,
        };
        let operation = format!("waiting:{}", self.hops);
        self.alert = granted(WRITER.schedule(due, cause, &waiting, &operation))?;
        Ok(())
    }
}

/// Boards and alerts are for whoever wants them: without the operator's grant, tasks move all the same.
fn granted(id: Result<String, EmitError>) -> Result<Option<String>, EmitError> {
    match id {
        Ok(id) => Ok(Some(id)),
        Err(EmitError::Denied(why)) => {
            warn!("left out, for it is denied: {why}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
