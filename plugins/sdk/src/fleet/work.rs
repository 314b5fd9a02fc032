//! What agents say that they did, and what follows when a task or a story is through.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Incoming, Malformed, Outgoing, Timestamp};

/// `agent.work.completed`. Names of roles and actions are as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentWork {
    pub task_id: String,
    pub action: Option<String>,
    pub actor_role: Option<String>,
    pub agent_id: Option<String>,
    pub story_id: Option<String>,
    pub feedback: Option<String>,
    /// `None` without artifacts; with artifacts, the commit that they name, or nothing.
    pub commit_sha: Option<Option<String>>,
    pub timestamp: Timestamp,
}

impl AgentWork {
    pub const SUBJECT: &'static str = "agent.work.completed";

    /// What an agent says at the top wins over what its result says.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let artifacts = ["artifacts", "result.artifacts"].into_iter().find_map(|path| message.at(path));
        let artifacts = artifacts.and_then(Value::as_object);
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            action: message.text(&["action"]),
            actor_role: message.text(&["actor_role", "role"]),
            agent_id: message.text(&["agent_id"]),
            story_id: message.text(&["story_id"]),
            feedback: message.text(&["feedback", "result.feedback"]),
            commit_sha: artifacts.map(|artifacts| artifacts.get("commit_sha").and_then(super::lenient::text)),
            timestamp: message.time("timestamp"),
        })
    }
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
        assert_eq!((work.feedback.as_deref(), work.commit_sha), (Some("fine"), Some(Some("abc".into()))));
        let both = json!({"task_id": "T", "actor_role": "po", "role": "qa", "feedback": "top",
            "artifacts": {}, "result": {"feedback": "below", "artifacts": {"commit_sha": "abc"}}});
        let work = read(both).unwrap();
        assert_eq!((work.actor_role.as_deref(), work.feedback.as_deref()), (Some("po"), Some("top")));
        assert_eq!(work.commit_sha, Some(None), "artifacts without a commit");
        assert_eq!(read(json!({"task_id": "T"})).unwrap().commit_sha, None);
        assert!(read(json!({"action": "commit_code"})).is_err());
    }
}
