//! What an executor's workers answer, in the several shapes that the fleet's versions send.

use serde_json::Value;

use super::{DERIVE_PREFIX, Incoming, Record, lenient};

/// `agent.response.completed` or `agent.response.failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentResponse {
    /// As sent, with its prefix; where several places name one, that of a derivation.
    pub task_id: Option<String>,
    pub plan_id: Option<String>,
    pub story_id: Option<String>,
    pub deliberation_id: Option<String>,
    pub agent_id: Option<String>,
    pub role: Option<String>,
    /// How many agents were asked, the same question.
    pub num_agents: u32,
    pub duration_ms: i64,
    /// True if nobody says otherwise.
    pub checks_passed: bool,
    /// Which attempt and opening of the derivation the job belonged to, where its metadata came back.
    pub attempt: Option<u32>,
    pub run: Option<u32>,
    pub answer: AgentAnswer,
    /// Neither a task id nor anything else but a plan and a proposal: the shape of the derivation service's own events.
    plan_and_proposal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAnswer {
    /// The model's text; empty if there is none anywhere.
    Text(String),
    Failed {
        error: String,
        error_type: Option<String>,
    },
}

impl AgentResponse {
    pub const COMPLETED: &'static str = "agent.response.completed";
    pub const FAILED: &'static str = "agent.response.failed";

    /// Never fails: what is not there is left out, and whether the answer is anybody's business is for
    /// [`AgentResponse::is_ours`] to say.
    pub fn read(message: &Incoming) -> Self {
        let task_id = task_id(message);
        let plan = message.text(&["plan_id", "constraints.plan_id", "constraints.metadata.plan_id"]);
        let from_task = || task_id.as_deref()?.strip_prefix(DERIVE_PREFIX).filter(|id| !id.is_empty());
        let number = |paths: &[&str]| {
            let number = paths.iter().find_map(|path| message.int(path))?;
            u32::try_from(number).ok()
        };
        let proposal = message.at("result.proposal").is_some();
        Self {
            plan_and_proposal: task_id.is_none() && plan.is_some() && proposal,
            plan_id: plan.or_else(|| from_task().map(str::to_owned)),
            story_id: message.text(&["story_id", "constraints.story_id", "constraints.metadata.story_id"]),
            deliberation_id: message.text(&[
                "deliberation_id",
                "metadata.deliberation_id",
                "constraints.metadata.deliberation_id",
            ]),
            agent_id: message.text(&["agent_id"]),
            role: message.text(&["role", "proposal.author_role", "constraints.role"]),
            num_agents: number(&["num_agents", "constraints.metadata.num_agents", "metadata.num_agents"])
                .filter(|agents| *agents > 0)
                .unwrap_or(1),
            duration_ms: ["output.duration_ms", "duration_ms"]
                .iter()
                .find_map(|path| message.int(path))
                .unwrap_or_default(),
            checks_passed: ["output.checks_passed", "checks_passed"]
                .iter()
                .find_map(|path| message.at(path).and_then(lenient::flag))
                .unwrap_or(true),
            attempt: number(&["constraints.metadata.attempt", "metadata.attempt", "attempt"]),
            run: number(&["constraints.metadata.run", "metadata.run"]),
            answer: if message.subject() == Self::FAILED {
                failed(message)
            } else {
                AgentAnswer::Text(text(message))
            },
            task_id,
        }
    }

    /// Whether the answer belongs to a derivation: its task id says so, or its deliberation is open in `record`, or it
    /// names no task but a plan and brings a proposal. Everything else is acked silently.
    pub fn is_ours(&self, record: Option<&Record>) -> bool {
        let by_task = self.task_id.as_deref().is_some_and(|id| id.starts_with(DERIVE_PREFIX));
        let by_deliberation = || {
            let (Some(record), Some(id)) = (record, &self.deliberation_id) else { return false };
            record.is_open() && record.attempt_of(id).is_some()
        };
        by_task || by_deliberation() || self.plan_and_proposal
    }
}

/// The first that is a derivation's, for a worker may put an id of its own before it; else the first of all.
fn task_id(message: &Incoming) -> Option<String> {
    let paths = ["task_id", "metadata.task_id", "constraints.metadata.task_id", "constraints.task_id"];
    let ids = || paths.iter().filter_map(|path| message.text(&[path]));
    ids().find(|id| id.starts_with(DERIVE_PREFIX)).or_else(|| ids().next())
}

/// The first of the places where the fleet's versions put the text that holds any.
fn text(message: &Incoming) -> String {
    ["result.proposal", "proposal", "output.proposal", "output.content", "output"]
        .iter()
        .find_map(|path| message.at(path).and_then(text_of))
        .unwrap_or_default()
}

/// A string is itself; an object is its content, proposal or text, or else, with none of these or only `null`, itself
/// as JSON, as an array is. Nothing for what is empty.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        Value::Object(object) => {
            let keys = ["content", "proposal", "text"];
            if let Some(text) = keys.iter().find_map(|key| object.get(*key).and_then(text_of)) {
                return Some(text);
            }
            let named = keys.iter().any(|key| object.get(*key).is_some_and(|value| !value.is_null()));
            (!named && object.values().any(|value| !value.is_null())).then(|| value.to_string())
        }
        Value::Array(values) => (!values.is_empty()).then(|| value.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn failed(message: &Incoming) -> AgentAnswer {
    let error = message.text(&["error", "error.message", "error_message", "reason", "message"]);
    AgentAnswer::Failed {
        error: error.unwrap_or_else(|| "the agent failed without saying why".into()),
        error_type: message.text(&["error_type"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::event;

    fn completed(data: Value) -> AgentResponse {
        AgentResponse::read(&Incoming::read(&event(AgentResponse::COMPLETED, data)).unwrap())
    }

    #[track_caller]
    fn check_text(data: Value, expect: &str) {
        assert_eq!(completed(data).answer, AgentAnswer::Text(expect.into()));
    }

    #[test]
    fn contract_2_4_text_is_found_in_every_shape() {
        check_text(json!({"result": {"proposal": "a"}, "proposal": "b"}), "a");
        check_text(json!({"result": {"proposal": " "}, "proposal": {"content": "b"}}), "b");
        check_text(json!({"proposal": {"author_id": "x", "content": "b", "text": "c"}}), "b");
        check_text(json!({"proposal": {"proposal": "p"}}), "p");
        check_text(json!({"output": {"proposal": {"text": "t"}}}), "t");
        check_text(json!({"output": {"content": ["x"]}}), "[\"x\"]");
        check_text(json!({"output": "plain"}), "plain");
        check_text(json!({"output": {"tasks": []}}), "{\"tasks\":[]}");
        check_text(json!({"proposal": [{"title": "a"}]}), "[{\"title\":\"a\"}]");
        check_text(json!({"proposal": {"content": ""}, "output": "x"}), "x");
        check_text(json!({"proposal": {"content": "", "author_id": "x"}}), "");
        check_text(json!({"proposal": {"content": null, "tasks": []}}), "{\"content\":null,\"tasks\":[]}");
        check_text(json!({"proposal": {"content": null}, "output": "x"}), "x");
        check_text(json!({"task_id": "derive-p"}), "");
    }

    #[test]
    fn contract_2_4_plan_id_comes_from_the_first_place_that_names_it() {
        let plan = |data| completed(data).plan_id;
        assert_eq!(plan(json!({"plan_id": "a", "task_id": "derive-b"})).as_deref(), Some("a"));
        assert_eq!(
            plan(json!({"constraints": {"plan_id": "c"}, "task_id": "derive-b"})).as_deref(),
            Some("c")
        );
        assert_eq!(plan(json!({"constraints": {"metadata": {"plan_id": "m"}}})).as_deref(), Some("m"));
        assert_eq!(plan(json!({"task_id": "derive-derive-b"})).as_deref(), Some("derive-b"));
        assert_eq!(plan(json!({"metadata": {"task_id": "derive-b"}})).as_deref(), Some("b"));
        assert_eq!(plan(json!({"task_id": "T-1"})), None);
        assert_eq!(plan(json!({"task_id": "derive-"})), None);
    }

    #[test]
    fn contract_2_4_story_id_comes_from_the_first_place_that_names_it() {
        let story = |data| completed(data).story_id;
        let all = json!({"story_id": "a", "constraints": {"story_id": "b", "metadata": {"story_id": "c"}}});
        assert_eq!(story(all).as_deref(), Some("a"));
        let two = json!({"story_id": " ", "constraints": {"story_id": "b", "metadata": {"story_id": "c"}}});
        assert_eq!(story(two).as_deref(), Some("b"));
        assert_eq!(story(json!({"constraints": {"metadata": {"story_id": "c"}}})).as_deref(), Some("c"));
        assert_eq!(story(json!({"task_id": "derive-p"})), None);
    }

    #[test]
    fn contract_2_4_ours_by_a_task_id_wherever_it_is() {
        let ours = completed(
            json!({"task_id": "T-1", "metadata": {"task_id": "derive-p"}, "proposal": {"content": "TITLE: A"}}),
        );
        assert!(ours.is_ours(None));
        assert_eq!((ours.task_id.as_deref(), ours.plan_id.as_deref()), (Some("derive-p"), Some("p")));
        let deep = completed(json!({"metadata": {"task_id": "T-1"}, "constraints": {"task_id": "derive-q"}}));
        assert_eq!((deep.is_ours(None), deep.plan_id.as_deref()), (true, Some("q")));
        let others = completed(json!({"metadata": {"task_id": "T-1"}, "constraints": {"task_id": "T-2"}}));
        assert_eq!((others.is_ours(None), others.task_id.as_deref()), (false, Some("T-1")));
    }

    #[test]
    fn contract_2_4_ours_answers_to_others_are_not() {
        assert!(completed(json!({"task_id": "derive-p"})).is_ours(None));
        assert!(completed(json!({"plan_id": "p", "result": {"proposal": "x"}})).is_ours(None));
        assert!(!completed(json!({"plan_id": "p", "proposal": "x"})).is_ours(None));
        assert!(
            !completed(json!({"plan_id": "p", "task_id": "T-1", "result": {"proposal": "x"}})).is_ours(None)
        );
        assert!(!completed(json!({"task_id": "T-1", "deliberation_id": "d"})).is_ours(None));
    }

    #[test]
    fn contract_2_4_ours_by_an_open_deliberation_whatever_the_task_id() {
        let mut record = Record { plan_id: "p".into(), ..Record::default() };
        record.attempts.push(super::super::Attempt {
            deliberation_id: Some("d".into()),
            job_id: "j".into(),
            ..Default::default()
        });
        let answer = completed(json!({"task_id": "T-1", "deliberation_id": "d"}));
        assert!(answer.is_ours(Some(&record)));
        assert!(completed(json!({"task_id": "T-1", "deliberation_id": "j"})).is_ours(Some(&record)));
        assert!(!completed(json!({"task_id": "T-1", "deliberation_id": "x"})).is_ours(Some(&record)));
        record.status = super::super::RecordStatus::Completed;
        assert!(!answer.is_ours(Some(&record)));
    }

    #[test]
    fn a_failure_says_what_failed() {
        let data = json!({"task_id": "derive-p", "error": "oom", "error_type": "RuntimeError", "metadata": {"attempt": "2"}});
        let response = AgentResponse::read(&Incoming::read(&event(AgentResponse::FAILED, data)).unwrap());
        assert_eq!(
            response.answer,
            AgentAnswer::Failed { error: "oom".into(), error_type: Some("RuntimeError".into()) }
        );
        assert_eq!(response.attempt, Some(2));
    }
}
