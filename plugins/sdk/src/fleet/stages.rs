//! The messages between the stages of task derivation, public so that a third party can replace any one stage.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Incoming, Malformed, Outgoing, Timestamp, derivation_id, lenient};

const TOP_PRIORITY: i32 = 1;
const LAST_PRIORITY: i32 = 10;

/// What every message between stages says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub plan_id: String,
    pub story_id: String,
    /// `derive-<plan_id>`.
    pub derivation_id: String,
    /// From 1.
    pub attempt: u32,
    /// Which opening of the plan's derivation it belongs to, from 1, if its sender knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
}

impl Stage {
    /// As every message between stages has it, also one that a plugin adds to those of this module.
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let plan_id = message.required(&["plan_id"])?;
        Ok(Self {
            story_id: message.text(&["story_id"]).unwrap_or_default(),
            derivation_id: message.text(&["derivation_id"]).unwrap_or_else(|| derivation_id(&plan_id)),
            attempt: message.int("attempt").and_then(|attempt| attempt.try_into().ok()).unwrap_or(1).max(1),
            run: message.int("run").and_then(|run| run.try_into().ok()),
            plan_id,
        })
    }
}

/// A task as it was understood, before it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParsedTask {
    /// Names the task within its batch.
    #[serde(rename = "ref")]
    pub reference: String,
    pub title: String,
    pub description: String,
    /// As CreateTasks names it.
    pub role: String,
    pub estimated_hours: i32,
    pub priority: i32,
    pub keywords: Vec<String>,
    /// Refs or titles. Nothing if the task did not declare any, which is not the same as declaring to have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Vec<String>>,
}

impl ParsedTask {
    /// `None` for what has no title, or one that is no text.
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| lenient::at(value, key).and_then(lenient::text);
        let list = |key: &str| lenient::at(value, key).and_then(names);
        Some(Self {
            reference: text("ref").unwrap_or_default(),
            title: lenient::at(value, "title").filter(|title| title.is_string()).and_then(lenient::text)?,
            description: text("description").unwrap_or_default(),
            role: text("role").unwrap_or_default(),
            // Begun hours count.
            estimated_hours: lenient::at(value, "estimated_hours")
                .and_then(number)
                .map_or(0, |hours| hours.ceil() as i32),
            priority: lenient::at(value, "priority")
                .and_then(number)
                .map_or(TOP_PRIORITY, |priority| (priority as i32).clamp(TOP_PRIORITY, LAST_PRIORITY)),
            keywords: list("keywords").unwrap_or_default(),
            depends_on: list("depends_on"),
        })
    }
}

/// A number of whatever size, as such or as a string.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// The texts of a list, or of a string with commas between.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) if text.contains(',') => {
            Some(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
        }
        other => lenient::list(other),
    }
}

/// A task that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub title: String,
    pub why: String,
}

/// `cofferdam.derivation.parsed`: text became tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivationParsed {
    #[serde(flatten)]
    pub stage: Stage,
    /// `llm` or `structured`.
    pub source: String,
    pub roles: Vec<String>,
    pub tasks: Vec<ParsedTask>,
    pub dropped: Vec<Dropped>,
    pub warnings: Vec<String>,
    /// Fewer tasks than the configured least.
    pub below_min: bool,
    pub deliberation_id: Option<String>,
}

impl DerivationParsed {
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        let array = |path| message.at(path).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let stage = Stage::read(message)?;
        let tasks: Vec<_> = array("tasks").iter().filter_map(ParsedTask::read).collect();
        let skipped = array("tasks").len() - tasks.len();
        if skipped > 0 {
            crate::warn!("skipped tasks without a title that is text"; plan_id = stage.plan_id, skipped = skipped);
        }
        Ok(Self {
            stage,
            source: message.text(&["source"]).unwrap_or_else(|| "llm".into()),
            roles: message.list("roles").unwrap_or_default(),
            tasks,
            dropped: array("dropped")
                .iter()
                .map(|value| Dropped {
                    title: lenient::at(value, "title").and_then(lenient::text).unwrap_or_default(),
                    why: lenient::at(value, "why").and_then(lenient::text).unwrap_or_default(),
                })
                .collect(),
            warnings: message.list("warnings").unwrap_or_default(),
            below_min: message.at("below_min").and_then(lenient::flag).unwrap_or(false),
            deliberation_id: message.text(&["deliberation_id"]),
        })
    }
}

impl Outgoing for DerivationParsed {
    const SUBJECT: &'static str = "cofferdam.derivation.parsed";

    fn entity(&self) -> &str {
        &self.stage.plan_id
    }
}

/// Why an attempt brought no tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    NoTasks,
    TruncatedJson,
    TooManyTasks,
    CircularDependency,
    AgentFailed,
    Timeout,
    PlanningError,
    /// A third party's own.
    Other(String),
}

impl Rejection {
    const NAMED: [Self; 7] = [
        Self::NoTasks,
        Self::TruncatedJson,
        Self::TooManyTasks,
        Self::CircularDependency,
        Self::AgentFailed,
        Self::Timeout,
        Self::PlanningError,
    ];

    pub fn parse(name: &str) -> Self {
        let found = Self::NAMED.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| Self::Other(name.into()))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::NoTasks => "no_tasks",
            Self::TruncatedJson => "truncated_json",
            Self::TooManyTasks => "too_many_tasks",
            Self::CircularDependency => "circular_dependency",
            Self::AgentFailed => "agent_failed",
            Self::Timeout => "timeout",
            Self::PlanningError => "planning_error",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Rejection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Rejection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

/// `cofferdam.derivation.rejected`: an attempt brought no tasks that can be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivationRejected {
    #[serde(flatten)]
    pub stage: Stage,
    pub kind: Rejection,
    /// For people, and for the model that is asked again.
    pub detail: String,
    pub deliberation_id: Option<String>,
}

impl DerivationRejected {
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            stage: Stage::read(message)?,
            kind: Rejection::parse(&message.text(&["kind"]).unwrap_or_else(|| "unknown".into())),
            detail: message.text(&["detail"]).unwrap_or_default(),
            deliberation_id: message.text(&["deliberation_id"]),
        })
    }
}

impl Outgoing for DerivationRejected {
    const SUBJECT: &'static str = "cofferdam.derivation.rejected";

    fn entity(&self) -> &str {
        &self.stage.plan_id
    }
}

/// `cofferdam.derivation.timeout`: an attempt has had its time. Published when that is over, by a timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DerivationTimeout {
    #[serde(flatten)]
    pub stage: Stage,
    /// As far as it was known when the timer was set.
    pub deliberation_id: Option<String>,
    /// When the time is over.
    pub timestamp: Timestamp,
}

impl DerivationTimeout {
    pub fn read(message: &Incoming) -> Result<Self, Malformed> {
        Ok(Self {
            stage: Stage::read(message)?,
            deliberation_id: message.text(&["deliberation_id"]),
            timestamp: message.time("timestamp"),
        })
    }
}

impl Outgoing for DerivationTimeout {
    const SUBJECT: &'static str = "cofferdam.derivation.timeout";

    fn entity(&self) -> &str {
        &self.stage.plan_id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Host, event};

    #[test]
    fn contract_9_parsed_tasks_of_a_third_party_are_read_tolerantly() {
        let message = Incoming::read(&event(
            DerivationParsed::SUBJECT,
            json!({"plan_id": "p", "attempt": "2", "tasks": [
                {"ref": "TASK-001", "title": " Login ", "estimated_hours": "8", "keywords": "auth"},
                {"title": "Logout", "depends_on": ["TASK-001"], "priority": 3.0},
                {"title": "Docs", "depends_on": []}, {"description": "no title"}, "nonsense",
            ]}),
        ));
        let parsed = DerivationParsed::read(&message.unwrap()).unwrap();
        assert_eq!(parsed.stage.attempt, 2);
        assert_eq!(parsed.stage.derivation_id, "derive-p");
        let [login, logout, docs] = parsed.tasks.as_slice() else { panic!("{:?}", parsed.tasks) };
        assert_eq!((login.title.as_str(), login.estimated_hours, login.priority), ("Login", 8, 1));
        assert_eq!((login.keywords.as_slice(), &login.depends_on), (&["auth".to_owned()][..], &None));
        assert_eq!((&logout.depends_on, logout.priority), (&Some(vec!["TASK-001".into()]), 3));
        assert_eq!(docs.depends_on, Some(vec![]));
    }

    #[test]
    fn amounts_and_lists_of_a_third_party_are_read_as_it_will_have_meant() {
        let message = Incoming::read(&event(
            DerivationParsed::SUBJECT,
            json!({"plan_id": "p", "tasks": [
                {"title": "A", "estimated_hours": 4.5, "priority": 1e30, "keywords": "auth, login,", "depends_on": "B,C"},
                {"title": "B", "estimated_hours": "4.5", "priority": 99_999_999_999_u64, "depends_on": ["C, D"]},
                {"title": "C", "estimated_hours": 1e30, "priority": -5},
            ]}),
        ));
        let parsed = DerivationParsed::read(&message.unwrap()).unwrap();
        let [a, b, c] = parsed.tasks.as_slice() else { panic!("{:?}", parsed.tasks) };
        assert_eq!((a.estimated_hours, a.priority), (5, 10));
        assert_eq!((b.estimated_hours, b.priority), (5, 10));
        assert_eq!((c.estimated_hours, c.priority), (i32::MAX, 1));
        assert_eq!(a.keywords, ["auth", "login"]);
        assert_eq!(a.depends_on, Some(vec!["B".into(), "C".into()]));
        assert_eq!(b.depends_on, Some(vec!["C, D".into()]));
    }

    #[test]
    fn tasks_whose_title_is_no_text_are_skipped_and_counted() {
        let read = |event: crate::Event| {
            let parsed = DerivationParsed::read(&Incoming::read(&event)?)?;
            assert_eq!(parsed.tasks.iter().map(|task| task.title.as_str()).collect::<Vec<_>>(), ["A"]);
            Ok(())
        };
        let tasks = json!([{"title": 42}, {"title": "A"}, {"title": ["B"]}, {"title": null}]);
        let run =
            Host::new().run(read, event(DerivationParsed::SUBJECT, json!({"plan_id": "p", "tasks": tasks})));
        assert_eq!(run.result, Ok(()));
        let [line] = run.logs.as_slice() else { panic!("{:?}", run.logs) };
        assert_eq!(line.level, crate::log::Level::Warn);
        assert!(line.fields.contains(&("skipped".into(), "3".into())), "{line:?}");
    }

    #[test]
    fn contract_9_rejected_an_unknown_kind_keeps_its_name() {
        let message =
            Incoming::read(&event(DerivationRejected::SUBJECT, json!({"plan_id": "p", "kind": "moon"})));
        assert_eq!(
            DerivationRejected::read(&message.unwrap()).unwrap().kind,
            Rejection::Other("moon".into())
        );
        assert_eq!(Rejection::parse("NO_TASKS"), Rejection::NoTasks);
    }
}
