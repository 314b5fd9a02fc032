//! What agents say that they did, and what follows when a task or a story is through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Incoming, Malformed, Outgoing, Timestamp, lenient};

/// `agent.work.completed`. Names of roles and actions are as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentWork {
    pub task_id: String,
    pub action: Option<String>,
    pub actor_role: Option<String>,
    pub agent_id: Option<String>,
    pub story_id: Option<String>,
    pub feedback: Option<String>,
    pub artifacts: Option<Artifacts>,
    pub timestamp: Timestamp,
}

impl AgentWork {
    pub const SUBJECT: &'static str = "agent.work.completed";

    /// What an agent says at the top wins over what its result says.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let artifacts = ["artifacts", "result.artifacts"].into_iter().find_map(|path| message.at(path));
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            action: message.text(&["action"]),
            actor_role: message.text(&["actor_role", "role"]),
            agent_id: message.text(&["agent_id"]),
            story_id: message.text(&["story_id"]),
            feedback: message.text(&["feedback", "result.feedback"]),
            artifacts: artifacts.and_then(Value::as_object).map(Artifacts::read),
            timestamp: message.time("timestamp"),
        })
    }
}

/// What an agent hands in, for others to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Artifacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_sha: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_changed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub implementation_summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_preview: Option<String>,
    /// Whatever else is a text or a number, by its key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// What is kept of artifacts: enough to find and judge the work, not the work itself.
const KEPT_FILES: usize = 100;
const KEPT_METADATA: usize = 32;
const KEPT_CHARACTERS: usize = 1_000;

impl Artifacts {
    /// Files may be a list, or a text with commas or line ends between them.
    pub fn read(object: &Map<String, Value>) -> Self {
        let mut artifacts = Self::default();
        for (key, value) in object {
            let text = lenient::text(value);
            match key.as_str() {
                "commit_sha" => artifacts.commit_sha = text,
                "files_changed" => artifacts.files_changed = files(value),
                "implementation_summary" => artifacts.implementation_summary = text,
                "context_preview" => artifacts.context_preview = text,
                _ => artifacts.metadata.extend(text.map(|text| (key.clone(), text))),
            }
        }
        artifacts
    }

    /// As much of it as is worth keeping: 1,000 characters of each text, 100 files, 32 others.
    #[must_use]
    pub fn shortened(&self) -> Self {
        let short = |text: &String| text.chars().take(KEPT_CHARACTERS).collect::<String>();
        let metadata = self.metadata.iter().take(KEPT_METADATA);
        Self {
            commit_sha: self.commit_sha.as_ref().map(short),
            files_changed: self.files_changed.iter().take(KEPT_FILES).map(short).collect(),
            implementation_summary: self.implementation_summary.as_ref().map(short),
            context_preview: self.context_preview.as_ref().map(short),
            metadata: metadata.map(|(key, text)| (short(key), short(text))).collect(),
        }
    }
}

fn files(value: &Value) -> Vec<String> {
    let Value::String(text) = value else { return lenient::list(value).unwrap_or_default() };
    let files = text.split([',', '\n']).map(str::trim).filter(|file| !file.is_empty());
    files.map(str::to_owned).collect()
}

/// `workflow.validation.required`: somebody has to look at what was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationRequired {
    pub task_id: String,
    pub story_id: String,
    /// Lower case.
    pub validator_role: String,
    /// `design`, `tests` or `story`.
    pub artifact_type: String,
    pub timestamp: Timestamp,
}

impl Outgoing for ValidationRequired {
    const SUBJECT: &'static str = "workflow.validation.required";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `workflow.task.completed`: the task is over, one way or the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCompleted {
    pub task_id: String,
    pub story_id: String,
    /// `done` or `cancelled`.
    pub final_state: String,
    pub timestamp: Timestamp,
}

impl Outgoing for TaskCompleted {
    const SUBJECT: &'static str = "workflow.task.completed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `workflow.story.tasks_completed`: no task of the story is left to do, and one at least was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryTasksCompleted {
    pub story_id: String,
    /// `done`.
    pub all_tasks_status: String,
    pub task_count: u32,
    pub cancelled_count: u32,
    pub timestamp: Timestamp,
}

impl Outgoing for StoryTasksCompleted {
    const SUBJECT: &'static str = "workflow.story.tasks_completed";

    fn entity(&self) -> &str {
        &self.story_id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::event;

    fn read(data: Value) -> Result<AgentWork, Malformed> {
        AgentWork::read(&Incoming::read(&event(AgentWork::SUBJECT, data)).unwrap())
    }

    #[test]
    fn contract_2_3_aliases_and_the_result_are_read() {
        let work = read(json!({"task_id": "T", "action": "APPROVE", "role": "qa",
            "result": {"feedback": "fine", "artifacts": {"commit_sha": "abc"}}}))
        .unwrap();
        assert_eq!((work.action.as_deref(), work.actor_role.as_deref()), (Some("APPROVE"), Some("qa")));
        let sha = work.artifacts.unwrap().commit_sha;
        assert_eq!((work.feedback.as_deref(), sha.as_deref()), (Some("fine"), Some("abc")));
        let both = json!({"task_id": "T", "actor_role": "po", "role": "qa", "feedback": "top",
            "artifacts": {}, "result": {"feedback": "below", "artifacts": {"commit_sha": "abc"}}});
        let work = read(both).unwrap();
        assert_eq!((work.actor_role.as_deref(), work.feedback.as_deref()), (Some("po"), Some("top")));
        assert_eq!(work.artifacts, Some(Artifacts::default()), "artifacts without a commit");
        assert_eq!(read(json!({"task_id": "T"})).unwrap().artifacts, None);
        assert!(read(json!({"action": "commit_code"})).is_err());
    }

    #[test]
    fn artifacts_are_read_in_either_form_and_kept_short() {
        let read = |value: Value| Artifacts::read(value.as_object().unwrap());
        let listed = read(json!({"commit_sha": " abc ", "files_changed": ["a.rs", "", "b.rs"],
            "implementation_summary": "what", "context_preview": "where", "branch": "main", "lines": 7, "odd": {}}));
        assert_eq!((listed.commit_sha.as_deref(), listed.files_changed.len()), (Some("abc"), 2));
        assert_eq!(
            (listed.implementation_summary.as_deref(), listed.context_preview.as_deref()),
            (Some("what"), Some("where"))
        );
        let metadata = [("branch", "main"), ("lines", "7")].map(|(key, text)| (key.into(), text.into()));
        assert_eq!(listed.metadata, metadata.into());
        assert_eq!(read(json!({"files_changed": "a.rs, b.rs\n,"})).files_changed, ["a.rs", "b.rs"]);

        let long = json!({"context_preview": "\u{e9}".repeat(2_000), "files_changed": vec!["a"; 200]});
        let short = read(long).shortened();
        assert_eq!(short.context_preview.unwrap().chars().count(), KEPT_CHARACTERS);
        assert_eq!(short.files_changed.len(), KEPT_FILES);
    }
}
