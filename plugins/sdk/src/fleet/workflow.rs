//! The messages that open tasks and tell how they move.

use serde::{Deserialize, Serialize};

use super::{Incoming, Malformed, Outgoing, Timestamp};

/// `planning.task.created`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCreated {
    pub task_id: String,
    pub story_id: String,
    pub plan_id: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub kind: Option<String>,
    pub assigned_to: Option<String>,
    pub estimated_hours: Option<i64>,
    /// 1 is the highest.
    pub priority: Option<i64>,
    pub depends_on: Vec<String>,
    pub created_at: Timestamp,
}

impl TaskCreated {
    pub const SUBJECT: &'static str = "planning.task.created";

    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: message.required(&["story_id"])?,
            plan_id: message.text(&["plan_id"]),
            title: message.text(&["title"]),
            description: message.text(&["description"]),
            kind: message.text(&["type"]),
            assigned_to: message.text(&["assigned_to"]),
            estimated_hours: message.int("estimated_hours"),
            priority: message.int("priority"),
            depends_on: message.list("depends_on").unwrap_or_default(),
            created_at: message.time("created_at"),
        })
    }
}

/// `planning.story.transitioned`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoryTransitioned {
    pub story_id: String,
    pub from_state: Option<String>,
    pub to_state: String,
    /// Without empty ids; nothing if the message has no list at all.
    pub tasks: Option<Vec<String>>,
    pub transitioned_by: Option<String>,
    pub timestamp: Timestamp,
}

impl StoryTransitioned {
    pub const SUBJECT: &'static str = "planning.story.transitioned";

    /// The state keys win over their aliases.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            story_id: message.required(&["story_id"])?,
            from_state: message.text(&["from_state", "from_phase", "from"]),
            to_state: message.required(&["to_state", "to_phase", "to"])?,
            tasks: message.list("tasks"),
            transitioned_by: message.text(&["transitioned_by"]),
            timestamp: message.time("timestamp"),
        })
    }
}

/// `workflow.state.changed`: one hop of a task. Empty strings stand for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChanged {
    pub event_type: String,
    pub task_id: String,
    pub story_id: String,
    pub from_state: String,
    pub to_state: String,
    /// Lower case, as all names here.
    pub action: String,
    pub actor_role: String,
    pub role_in_charge: String,
    pub required_action: String,
    pub feedback: String,
    pub retry_count: u32,
    pub timestamp: Timestamp,
}

impl Outgoing for StateChanged {
    const SUBJECT: &'static str = "workflow.state.changed";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `workflow.task.assigned`, with the keys that all versions of its readers look for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAssigned {
    pub task_id: String,
    pub story_id: String,
    /// Lower case.
    pub role: String,
    pub assigned_to_role: String,
    /// The label, such as `IMPLEMENT_FEATURE`.
    pub action: String,
    pub required_action: String,
    /// The action that is to follow, such as `commit_code`.
    pub action_required: String,
    pub current_state: String,
    /// Only with rework.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    pub timestamp: Timestamp,
}

impl TaskAssigned {
    /// A task that `role` is to go on with.
    pub fn new(task_id: &str, story_id: &str, role: &str, label: &str, action: &str, state: &str) -> Self {
        Self {
            task_id: task_id.into(),
            story_id: story_id.into(),
            role: role.into(),
            assigned_to_role: role.into(),
            action: label.into(),
            required_action: label.into(),
            action_required: action.into(),
            current_state: state.into(),
            feedback: None,
            timestamp: Timestamp::now(),
        }
    }

    /// By whichever of the keys the fleet's versions write. Names are as they were written.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let text = |paths: &[&str]| message.text(paths).unwrap_or_default();
        let role = text(&["assigned_to_role", "role"]);
        let label = text(&["required_action", "action"]);
        Ok(Self {
            task_id: message.required(&["task_id"])?,
            story_id: text(&["story_id"]),
            assigned_to_role: role.clone(),
            role,
            action: label.clone(),
            required_action: label,
            action_required: text(&["action_required"]),
            current_state: text(&["current_state"]),
            feedback: message.text(&["feedback"]),
            timestamp: message.time("timestamp"),
        })
    }
}

impl Outgoing for TaskAssigned {
    const SUBJECT: &'static str = "workflow.task.assigned";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

/// `cofferdam.workflow.waiting`: a task has waited for somebody for long. Scheduled, and taken back if it moves on before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskWaiting {
    pub task_id: String,
    pub story_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    pub state: String,
    /// Lower case; empty if nobody is.
    pub role_in_charge: String,
    /// For how long it has been in this state.
    pub waiting_seconds: u64,
    /// When that was.
    pub timestamp: Timestamp,
}

impl Outgoing for TaskWaiting {
    const SUBJECT: &'static str = "cofferdam.workflow.waiting";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::event;

    fn transitioned(data: Value) -> Result<StoryTransitioned, Malformed> {
        StoryTransitioned::read(&Incoming::read(&event(StoryTransitioned::SUBJECT, data)).unwrap())
    }

    #[test]
    fn the_state_keys_win_over_their_aliases() {
        let to = |data: Value| transitioned(data).unwrap().to_state;
        assert_eq!(to(json!({"story_id": "s", "to": "A", "to_phase": "B", "to_state": "C"})), "C");
        assert_eq!(to(json!({"story_id": "s", "to": "A", "to_phase": "B"})), "B");
        assert_eq!(to(json!({"story_id": "s", "to": "A"})), "A");
        assert!(transitioned(json!({"story_id": "s"})).is_err());
        assert!(transitioned(json!({"to_state": "A"})).is_err());
    }

    #[test]
    fn a_missing_list_of_tasks_is_not_an_empty_one() {
        let tasks = |data: Value| transitioned(data).unwrap().tasks;
        assert_eq!(
            tasks(json!({"story_id": "s", "to": "A", "tasks": ["a", "", " "]})),
            Some(vec!["a".into()])
        );
        assert_eq!(tasks(json!({"story_id": "s", "to": "A", "tasks": []})), Some(vec![]));
        assert_eq!(tasks(json!({"story_id": "s", "to": "A", "tasks": null})), None);
        assert_eq!(tasks(json!({"story_id": "s", "to": "A"})), None);
    }

    #[test]
    fn a_created_task_needs_its_ids_and_nothing_else() {
        let read = |data| TaskCreated::read(&Incoming::read(&event(TaskCreated::SUBJECT, data)).unwrap());
        let task =
            read(json!({"task_id": "t", "story_id": "s", "priority": "2", "depends_on": ["x"]})).unwrap();
        assert_eq!((task.priority, task.depends_on), (Some(2), vec!["x".to_owned()]));
        assert!(read(json!({"task_id": "t"})).is_err());
        assert!(read(json!({"story_id": "s"})).is_err());
    }
}
