//! A deliberation that is over is told of for an hour, then its texts go.

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, Malformed, Outgoing},
    state,
};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, collector, malformed, record,
    totals::{Ended, What},
};

/// `cofferdam.council.forget`, scheduled once a deliberation has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forget {
    pub(crate) task_id: String,
    /// Which deliberation: a later one of the task stays.
    pub(crate) execution_id: String,
}

impl Forget {
    fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            execution_id: message.required(&["execution_id"])?,
        })
    }
}

impl Outgoing for Forget {
    const SUBJECT: &'static str = "cofferdam.council.forget";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// Has the record of the event's own cell, which is over now, forgotten in an hour. It counts as a collection does: as no deliberation of
/// a council, for each of those that share the record has been counted.
pub(crate) fn later(cause: &Cause, task_id: &str, execution_id: &str) -> Result<(), Failure> {
    let ended = Ended::new(task_id, execution_id, What::Collection, 0);
    WRITER.emit(cause, &ended, &format!("ended:{execution_id}"))?;
    Ok(())
}

/// The hour is over. Which messages were taken in is remembered still, so that a repeat stays one.
pub(crate) fn due(message: &Incoming) -> Result<(), Failure> {
    let forget = Forget::read(message).map_err(malformed)?;
    message.keyed_by(&forget.task_id).map_err(malformed)?;
    if record::load()?.is_some_and(|record| record::execution(&record) == forget.execution_id) {
        state::delete(record::RESULT)?;
    }
    collector::forget(&forget.execution_id)
}
