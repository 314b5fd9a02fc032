//! The plugin's own events, by which a story and its tasks learn of each other.

use cofferdam_sdk::fleet::{Incoming, Malformed, Outgoing, lenient};
use serde::Serialize;

use crate::machine::End;

/// `cofferdam.workflow.open`, from a story to a task: exist, unless you do already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Open {
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    /// Go to a developer at once.
    pub(crate) assign: bool,
}

impl Open {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.required(&["story_id"])?,
            assign: message.at("assign").and_then(lenient::flag).unwrap_or(false),
        })
    }
}

impl Outgoing for Open {
    const SUBJECT: &'static str = "cofferdam.workflow.open";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.workflow.opened`, from a task to its story: I exist now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Opened {
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    pub(crate) state: String,
}

impl Opened {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.required(&["story_id"])?,
            state: message.text(&["state"]).unwrap_or_default(),
        })
    }
}

impl Outgoing for Opened {
    const SUBJECT: &'static str = "cofferdam.workflow.opened";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.workflow.moved`, from a task to its story: I have left my first owner, or I am over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Moved {
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    pub(crate) state: String,
    /// How it ended, if it has.
    pub(crate) ended: Option<End>,
}

impl Moved {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        let ended = message.at("ended").and_then(|ended| serde_json::from_value(ended.clone()).ok());
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.required(&["story_id"])?,
            state: message.text(&["state"]).unwrap_or_default(),
            ended,
        })
    }
}

impl Outgoing for Moved {
    const SUBJECT: &'static str = "cofferdam.workflow.moved";

    fn entity(&self) -> &str {
        &self.task_id
    }
}
