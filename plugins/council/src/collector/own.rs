//! The collector's timer: the time of a collection is over.

use cofferdam_sdk::fleet::{Incoming, Malformed, Outgoing, Timestamp, lenient};
use serde::Serialize;

use super::collection::Collection;

pub(super) const SUBJECT: &str = "cofferdam.council.overdue";

/// `cofferdam.council.overdue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Overdue {
    pub(super) task_id: String,
    /// Which collection: a later one of the task has its own.
    pub(super) execution_id: String,
    /// When it was to fire.
    pub(super) due: Timestamp,
    /// It has been put off once.
    pub(super) again: bool,
}

impl Overdue {
    pub(super) fn of(collection: &Collection, due: Timestamp, again: bool) -> Self {
        let (task_id, execution_id) = (collection.task_id.clone(), collection.execution_id.clone());
        Self { task_id, execution_id, due, again }
    }

    pub(super) fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            execution_id: message.required(&["execution_id"])?,
            due: message.time("due"),
            again: message.at("again").and_then(lenient::flag).unwrap_or(false),
        })
    }

    /// Part of its idempotency key.
    pub(super) fn operation(&self) -> String {
        format!("overdue:{}:{}", self.execution_id, self.again)
    }
}

impl Outgoing for Overdue {
    const SUBJECT: &'static str = SUBJECT;

    fn entity(&self) -> &str {
        &self.task_id
    }
}
