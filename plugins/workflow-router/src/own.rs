//! The plugin's own events, by which a story, its tasks and the boards learn of each other.

use cofferdam_sdk::fleet::{Incoming, Malformed, Outgoing, lenient};
use serde::{Deserialize, Serialize};

use crate::{board, figures::Figures, machine::End};

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
    pub(crate) figures: Figures,
}

impl Moved {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        let ended = message.at("ended").and_then(|ended| serde_json::from_value(ended.clone()).ok());
        let figures = message.at("figures").and_then(|figures| serde_json::from_value(figures.clone()).ok());
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.required(&["story_id"])?,
            state: message.text(&["state"]).unwrap_or_default(),
            ended,
            figures: figures.unwrap_or_default(),
        })
    }
}

impl Outgoing for Moved {
    const SUBJECT: &'static str = "cofferdam.workflow.moved";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.workflow.board`, from a task to its board: this is how I am now. All of it, so that the newest alone counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picture {
    /// Of the board.
    pub(crate) board: u64,
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    pub(crate) state: String,
    /// How it ended, if it has.
    #[serde(default)]
    pub(crate) ended: Option<End>,
    /// When it came into its state, in unix seconds.
    pub(crate) since: i64,
    /// 1 is the highest.
    #[serde(default)]
    pub(crate) priority: Option<i64>,
    #[serde(default)]
    pub(crate) claimed_by: Option<String>,
    /// Of what was handed in last.
    #[serde(default)]
    pub(crate) commit_sha: Option<String>,
    /// From 1, one more with each picture of the task.
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) figures: Figures,
}

impl Picture {
    pub(crate) fn read(message: &Incoming) -> Result<Self, Malformed> {
        let malformed = |reason: String| Malformed { subject: message.subject().to_owned(), reason };
        let picture: Self = serde_json::from_value(message.payload().clone())
            .map_err(|error| malformed(format!("it is no picture of a task: {error}")))?;
        if picture.board != board::number(&picture.task_id) {
            let Self { board, task_id, .. } = picture;
            return Err(malformed(format!("the task {task_id:?} is not of board {board}")));
        }
        Ok(picture)
    }
}

impl Outgoing for Picture {
    const SUBJECT: &'static str = "cofferdam.workflow.board";

    fn entity(&self) -> &str {
        &self.task_id
    }
}
