//! A story's own messages: that there is one, and each step that it makes.

use serde::{Deserialize, Serialize};

use super::{Incoming, Malformed, Outgoing, StoryTransitioned, Timestamp};

/// `planning.story.created`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryCreated {
    pub story_id: String,
    pub epic_id: Option<String>,
    pub title: Option<String>,
    pub brief: Option<String>,
    /// Where it begins, if it says so; as it was written.
    pub state: Option<String>,
    /// Definition of ready, 0 to 100.
    pub dor_score: Option<i64>,
    pub created_by: Option<String>,
    pub created_at: Timestamp,
}

impl StoryCreated {
    pub const SUBJECT: &'static str = "planning.story.created";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let time = if message.at("created_at").is_some() { "created_at" } else { "timestamp" };
        Ok(Self {
            story_id: message.required(&["story_id"])?,
            epic_id: message.text(&["epic_id"]),
            title: message.text(&["title"]),
            brief: message.text(&["brief", "description"]),
            state: message.text(&["state", "initial_state"]),
            dor_score: message.int("dor_score"),
            created_by: message.text(&["created_by"]),
            created_at: message.time(time),
        })
    }
}

/// `planning.story.transitioned`, written with both pairs of keys that its readers look for. It is read as
/// [`StoryTransitioned`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryStep {
    pub story_id: String,
    pub from_state: String,
    pub to_state: String,
    /// The agile phases of both states.
    pub from_phase: String,
    pub to_phase: String,
    /// Ids, in order. Left out if they are not known: an empty list says that there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    pub transitioned_by: String,
    pub timestamp: Timestamp,
}

impl Outgoing for StoryStep {
    const SUBJECT: &'static str = StoryTransitioned::SUBJECT;

    fn entity(&self) -> &str {
        &self.story_id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::event;

    fn read(data: Value) -> Result<StoryCreated, Malformed> {
        StoryCreated::read(&Incoming::read(&event(StoryCreated::SUBJECT, data)).unwrap())
    }

    #[test]
    fn a_created_story_needs_its_id_and_nothing_else() {
        let bare = read(json!({"story_id": "S"})).unwrap();
        assert_eq!((bare.story_id.as_str(), bare.title, bare.state), ("S", None, None));
        assert!(read(json!({"title": "Login"})).is_err());
        let full = read(json!({"story_id": "S", "epic_id": "E", "title": "Login", "description": "By mail",
            "state": "PO_REVIEW", "dor_score": "80", "created_by": "ann", "timestamp": 5}))
        .unwrap();
        assert_eq!((full.brief.as_deref(), full.dor_score), (Some("By mail"), Some(80)));
        assert_eq!((full.state.as_deref(), full.created_at.unix_seconds()), (Some("PO_REVIEW"), 5));
    }

    #[test]
    fn contract_k15_a_step_reads_back_by_every_pair_of_keys() {
        let step = StoryStep {
            story_id: "S".into(),
            from_state: "PLANNED".into(),
            to_state: "READY_FOR_EXECUTION".into(),
            from_phase: "DESIGN".into(),
            to_phase: "BUILD".into(),
            ..StoryStep::default()
        };
        let written = serde_json::to_value(&step).unwrap();
        assert_eq!(written.get("tasks"), None, "not known is not none");
        let message = Incoming::read(&event(StoryStep::SUBJECT, written)).unwrap();
        let read = StoryTransitioned::read(&message).unwrap();
        assert_eq!(
            (read.from_state.as_deref(), read.to_state.as_str()),
            (Some("PLANNED"), "READY_FOR_EXECUTION")
        );
        assert_eq!(read.tasks, None);
    }
}
