//! What has been answered of one task so far, and what it comes to. Kept under a key of its own, beside the record that others are told.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    Failure,
    fleet::{AgentAnswer, AgentResponse, Cause, Incoming, QueueConstraints, Timestamp, lenient},
    state::{self, StateError},
};
use fleet_proto::orchestrator::v1::{
    DeliberationResult, DeliberationStatus, GetDeliberationResultResponse, Proposal, TaskConstraints,
};
use serde::{Deserialize, Serialize};

use crate::{
    councils, fit,
    hear::{self, Failed},
    scoring,
    task::Task,
    text,
    verdict::{self, Verdict},
};

const COLLECTED: &str = "collected";
/// More than the fleet ever asks.
const MOST_AGENTS: u32 = 64;
/// Of an id or a role. Longer ones are none.
const MOST_OF_A_NAME: usize = 256;
/// Of an agent's error.
const MOST_OF_AN_ERROR: usize = 1_000;
/// Of all that the constraints say.
const MOST_OF_CONSTRAINTS: usize = 32 << 10;
const MOST_OF_A_DESCRIPTION: usize = 16 << 10;

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Kept,
    /// The agent has answered before.
    Repeated,
    /// It names no agent.
    Nameless,
    TooMany,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Collection {
    pub(super) task_id: String,
    /// The event of its first answer.
    pub(super) execution_id: String,
    story_id: String,
    role: String,
    description: String,
    constraints: QueueConstraints,
    /// How many agents are to answer.
    asked: u32,
    answers: Vec<Answer>,
    failed: Vec<Silent>,
    opened_at: Timestamp,
    pub(super) cause: Cause,
    pub(super) timer: Option<String>,
    pub(super) ended: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    agent_id: String,
    role: String,
    text: String,
    duration_ms: i64,
    at: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Silent {
    agent_id: String,
    error: String,
    error_type: String,
}

impl Collection {
    /// Of the event's own cell.
    pub(super) fn load() -> Result<Option<Self>, StateError> {
        state::load(COLLECTED)
    }

    pub(super) fn save(&self) -> Result<(), StateError> {
        state::save(COLLECTED, self)
    }

    pub(super) fn delete() -> Result<(), StateError> {
        state::delete(COLLECTED)
    }

    pub(super) fn open(message: &Incoming, response: &AgentResponse, task_id: &str) -> Self {
        let cause = message.cause();
        let description =
            message.text(&["task_description", "constraints.task_description"]).unwrap_or_default();
        Self {
            task_id: task_id.to_owned(),
            execution_id: cause.event_id.clone(),
            role: response.role.as_deref().map(role).unwrap_or_default(),
            description: text::beginning(&description, MOST_OF_A_DESCRIPTION),
            constraints: constraints(message),
            opened_at: message.arrival(),
            cause,
            ..Self::default()
        }
    }

    /// Counts an answer of an agent that has not answered before. Any of the answers may say how many are to come, and which story it
    /// is: the greatest number holds, and the first story.
    pub(super) fn take(&mut self, message: &Incoming, response: &AgentResponse) -> Taken {
        let name = |id: &&str| id.len() <= MOST_OF_A_NAME;
        let Some(agent_id) = response.agent_id.as_deref().filter(name) else { return Taken::Nameless };
        let answered = self.answers.iter().map(|answer| &answer.agent_id);
        if answered.chain(self.failed.iter().map(|failed| &failed.agent_id)).any(|known| known == agent_id) {
            return Taken::Repeated;
        }
        if self.heard() >= MOST_AGENTS {
            return Taken::TooMany;
        }
        self.asked = self.asked.max(response.num_agents).min(MOST_AGENTS);
        if self.story_id.is_empty() {
            let story = response.story_id.clone().or_else(|| story_in(&self.task_id));
            self.story_id = story.filter(|id| name(&id.as_str())).unwrap_or_default();
        }
        match said(message, &response.answer) {
            AgentAnswer::Text(answer) => self.answers.push(Answer {
                agent_id: agent_id.to_owned(),
                role: response.role.as_deref().map_or_else(|| self.role.clone(), role),
                text: clean(&answer),
                duration_ms: response.duration_ms.max(0),
                at: message.arrival(),
            }),
            AgentAnswer::Failed { error, error_type } => self.failed.push(Silent {
                agent_id: agent_id.to_owned(),
                error: text::beginning(&error, MOST_OF_AN_ERROR),
                error_type: text::beginning(error_type.as_deref().unwrap_or("failed"), MOST_OF_A_NAME),
            }),
        }
        self.fit();
        Taken::Kept
    }

    /// All answers together have so much room, whoever wrote most has least of it.
    fn fit(&mut self) {
        let sizes: Vec<usize> = self.answers.iter().map(|answer| text::size(&answer.text)).collect();
        let level = fit::level(&sizes, fit::RECORD);
        for answer in &mut self.answers {
            text::cut(&mut answer.text, level);
        }
    }

    fn heard(&self) -> u32 {
        u32::try_from(self.answers.len() + self.failed.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.heard() >= self.asked
    }

    /// What it comes to, scored by the scoring stage: a time-out if it is not complete.
    pub(super) fn verdict(&self, now: Timestamp) -> Result<Verdict, Failure> {
        let task = self.task();
        let results = scoring::judge(&hear::subject(&task), self.proposals())?;
        let (status, error) = match (self.is_complete(), results.is_empty()) {
            (true, false) => (DeliberationStatus::Completed, String::new()),
            (true, true) => {
                let reasons = hear::reasons(&self.failures());
                (DeliberationStatus::Failed, format!("all {} agents failed: {reasons}", self.failed.len()))
            }
            (false, _) => (DeliberationStatus::Timeout, self.missing()),
        };
        Ok(self.as_verdict(now, status, results, error))
    }

    /// What it comes to where the scoring stage says nothing: all that was answered, and who is to blame.
    pub(super) fn unscored(&self, now: Timestamp, failure: &Failure) -> Verdict {
        let results = (1..).zip(self.proposals()).map(|(rank, proposal)| DeliberationResult {
            proposal: Some(proposal),
            rank,
            ..DeliberationResult::default()
        });
        let error = text::beginning(&format!("the answers were not scored: {failure}"), MOST_OF_AN_ERROR);
        self.as_verdict(now, DeliberationStatus::Failed, results.collect(), error)
    }

    fn as_verdict(
        &self,
        now: Timestamp,
        status: DeliberationStatus,
        results: Vec<DeliberationResult>,
        error: String,
    ) -> Verdict {
        // An agent knows best how long it took, if it says so.
        let told = self.answers.iter().map(|answer| answer.duration_ms).max().unwrap_or_default();
        let waited = i64::try_from(now.millis_since(self.opened_at)).unwrap_or(i64::MAX);
        Verdict::collected(status, results, error, self.failures(), self.asked, told.max(waited))
    }

    fn missing(&self) -> String {
        let answers = self.answers.len();
        let mut told = format!("{answers} of {} agents answered in time", self.asked);
        if !self.failed.is_empty() {
            told.push_str(&format!(", {} failed: {}", self.failed.len(), hear::reasons(&self.failures())));
        }
        told
    }

    fn failures(&self) -> Vec<Failed> {
        self.failed
            .iter()
            .map(|failed| Failed::said(&failed.agent_id, &failed.error_type, &failed.error))
            .collect()
    }

    fn proposals(&self) -> Vec<Proposal> {
        let proposal = |answer: &Answer| Proposal {
            author_id: answer.agent_id.clone(),
            author_role: answer.role.clone(),
            content: answer.text.clone(),
            created_at_ms: i64::try_from(answer.at.nanos() / 1_000_000).unwrap_or_default(),
            revisions: Vec::new(),
        };
        self.answers.iter().map(proposal).collect()
    }

    pub(super) fn task(&self) -> Task {
        let QueueConstraints { rubric, requirements, metadata, max_iterations, timeout_seconds } =
            self.constraints.clone();
        Task {
            task_id: self.task_id.clone(),
            description: self.description.clone(),
            role: self.role.clone(),
            constraints: TaskConstraints { rubric, requirements, metadata, max_iterations, timeout_seconds },
            story_id: self.story_id.clone(),
        }
    }

    /// What GetDeliberationResult tells while answers are missing.
    pub(super) fn in_progress(&self) -> GetDeliberationResultResponse {
        let tags = [("answered", self.answers.len()), ("failed", self.failed.len())]
            .map(|(name, count)| (name.to_owned(), count.to_string()));
        let asked = ("asked".to_owned(), self.asked.to_string());
        GetDeliberationResultResponse {
            task_id: self.task_id.clone(),
            status: DeliberationStatus::InProgress.into(),
            metadata: Some(verdict::metadata(&self.execution_id, tags.into_iter().chain([asked]).collect())),
            ..GetDeliberationResultResponse::default()
        }
    }

    /// That it was, and no more: the record has the rest.
    pub(super) fn over(&self) -> Self {
        Self {
            task_id: self.task_id.clone(),
            execution_id: self.execution_id.clone(),
            opened_at: self.opened_at,
            asked: self.asked,
            ended: true,
            ..Self::default()
        }
    }
}

/// What an agent said. On `agent.results.*` a failure is one by its status.
fn said(message: &Incoming, answer: &AgentAnswer) -> AgentAnswer {
    let AgentAnswer::Text(text) = answer else { return answer.clone() };
    let status = message.text(&["status"]).unwrap_or_default();
    let failed = ["failed", "error", "timeout"].iter().any(|word| status.eq_ignore_ascii_case(word));
    let error = message.text(&["error", "error.message", "error_message"]);
    if message.subject() != AgentResponse::COMPLETED && (failed || (text.is_empty() && error.is_some())) {
        return AgentAnswer::Failed {
            error: error.unwrap_or_else(|| "the agent failed without saying why".into()),
            error_type: message.text(&["error_type"]),
        };
    }
    answer.clone()
}

/// Without a model's thinking, unless that is all there is.
fn clean(answer: &str) -> String {
    let clean = text::clean(answer);
    if clean.is_empty() { answer.trim().to_owned() } else { clean }
}

fn role(name: &str) -> String {
    text::beginning(&councils::canonical(name), MOST_OF_A_NAME)
}

/// Of `ceremony-x:story-y:role-z`.
fn story_in(task_id: &str) -> Option<String> {
    let story = task_id.strip_prefix("ceremony-")?.split(':').find_map(|part| part.strip_prefix("story-"))?;
    (!story.is_empty()).then(|| story.to_owned())
}

/// What the agents were told to keep to, as far as it comes back with their answers, and within bounds.
fn constraints(message: &Incoming) -> QueueConstraints {
    let mut left = MOST_OF_CONSTRAINTS;
    let mut room = |size: usize| {
        let fits = size <= left;
        left -= if fits { size } else { 0 };
        fits
    };
    let rubric =
        message.text(&["constraints.rubric"]).filter(|rubric| room(rubric.len())).unwrap_or_default();
    let requirements = message.list("constraints.requirements").unwrap_or_default();
    let requirements =
        requirements.into_iter().filter(|requirement| room(requirement.len())).take(50).collect();
    let told = message.at("constraints.metadata").and_then(serde_json::Value::as_object);
    let told =
        told.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), lenient::text(value)?)));
    let metadata: BTreeMap<String, String> =
        told.filter(|(name, value)| room(name.len() + value.len())).take(50).collect();
    QueueConstraints { rubric, requirements, metadata, ..QueueConstraints::default() }
}
