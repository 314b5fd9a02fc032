//! The plugin's own events: by which a task and the queue learn of each other, which a task sets as timers, and by which the queue
//! tells of tasks that can't go.

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, Malformed, Outgoing, Timestamp},
    metrics,
    publish::EmitError,
    warn,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::WRITER;

/// `cofferdam.queue.changed`, from a task to its queue: look at me. The queue goes by what it finds there, so it does no harm if
/// this comes late, twice, or in another order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) queue: String,
    pub(crate) task_id: String,
    #[serde(default)]
    pub(crate) story_id: String,
    /// For whoever watches.
    #[serde(default)]
    pub(crate) status: String,
    /// How often the queue was full when the task came.
    #[serde(default)]
    pub(crate) turned_away: u32,
}

impl Outgoing for Changed {
    const SUBJECT: &'static str = "cofferdam.queue.changed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.queue.go`, from the queue to a task: it is your turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Go {
    pub(crate) task_id: String,
    #[serde(default)]
    pub(crate) story_id: String,
    /// Of several turns of the task it is this one.
    pub(crate) turn: u32,
}

impl Outgoing for Go {
    const SUBJECT: &'static str = "cofferdam.queue.go";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.queue.unexplained`, a timer of a task that was assigned: Planning has not told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unexplained {
    pub(crate) task_id: String,
    #[serde(default)]
    pub(crate) story_id: String,
}

impl Outgoing for Unexplained {
    const SUBJECT: &'static str = "cofferdam.queue.unexplained";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.queue.overdue`, a timer of a task in progress: this attempt has taken too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overdue {
    pub(crate) task_id: String,
    #[serde(default)]
    pub(crate) story_id: String,
    #[serde(default)]
    pub(crate) attempt: u32,
    /// Of the timers of the task it is this one.
    pub(crate) watch: u32,
}

impl Outgoing for Overdue {
    const SUBJECT: &'static str = "cofferdam.queue.overdue";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.queue.blocked`, for whoever watches: this task can't go as things are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Blocked {
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    /// The tasks that failed, or depend on each other, before it. The first of them, if they are many; none if it is for want of a
    /// council.
    pub(crate) behind: Vec<String>,
    pub(crate) error: String,
    pub(crate) timestamp: Timestamp,
}

impl Outgoing for Blocked {
    const SUBJECT: &'static str = "cofferdam.queue.blocked";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

impl Blocked {
    pub(crate) fn tell(&self, cause: &Cause, operation: &str) -> Result<(), Failure> {
        warn!("the task can't go: {}", self.error; task_id = self.task_id, story_id = self.story_id);
        metrics::count("task_queue_blocked", &[])?;
        match WRITER.emit(cause, self, operation) {
            // It is for whoever wants it: without the operator's grant tasks go all the same.
            Err(EmitError::Denied(why)) => warn!("left out, for it is denied: {why}"),
            sent => sent.map(drop)?,
        }
        Ok(())
    }
}

/// One of the events above.
pub(crate) fn read<M: Outgoing + DeserializeOwned>(message: &Incoming) -> Result<M, Malformed> {
    serde_json::from_value(message.payload().clone()).map_err(|error| Malformed {
        subject: message.subject().to_owned(),
        reason: format!("it is none of the plugin's own: {error}"),
    })
}
