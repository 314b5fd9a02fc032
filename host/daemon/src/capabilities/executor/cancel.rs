//! Cancelling a job: a message that says so, stored when the event commits.

use cofferdam_sandbox::ExecutorError;

use super::super::Run;
use crate::{
    executor::{cancel, job},
    fault::Fault,
    observe::text,
};

/// Of one event: more is a loop, not a plan.
const MAX_CANCELLED: usize = 256;
/// Of an id, in messages.
const SHOWN: usize = 128;

impl Run {
    pub(in crate::capabilities) fn cancel_job(&mut self, id: &str) -> Result<(), ExecutorError> {
        self.may_have_effects().map_err(ExecutorError::Denied)?;
        self.executor()?;
        let shown = text::excerpt(id, SHOWN);
        match job::owner(id) {
            Some(owner) if owner == self.plugin.name => {}
            Some(owner) => {
                self.blame = Some(Fault::Guest);
                let own = &self.plugin.name;
                return Err(ExecutorError::Denied(format!(
                    "the job {shown:?} is {owner:?}'s; plugin {own:?} cancels its own alone"
                )));
            }
            None => {
                return Err(ExecutorError::Invalid(format!(
                    "{shown:?} is not the id of a job, as submit returns it"
                )));
            }
        }
        if self.cancelled_jobs.contains(id) {
            return Ok(());
        }
        if self.cancelled_jobs.len() == MAX_CANCELLED {
            return Err(ExecutorError::Limit(format!(
                "this event has cancelled {MAX_CANCELLED} jobs, the limit"
            )));
        }
        let (size, room) = (super::submit::AROUND, self.room());
        if size > room {
            return Err(ExecutorError::Limit(format!(
                "cancelling a job takes {size} bytes, and this event's commit has room for {room} more: its messages, \
                 timers, jobs and state are stored as one"
            )));
        }
        self.cancelled_jobs.insert(id.to_owned());
        let wish = cancel::message(id);
        self.effect(wish.subject, wish.headers, wish.data);
        Ok(())
    }
}
