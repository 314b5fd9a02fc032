//! How a task ends: an agent answers, or where several do, whoever collects their answers.

use cofferdam_sdk::{
    Failure, delivery,
    fleet::{
        AgentAnswer, AgentResponse, Cause, DeliberationCompleted, Incoming, OrchestratedTaskCompleted,
        OrchestratedTaskFailed, Role, Timestamp,
    },
    info, metrics, warn,
};
use serde::{Deserialize, Serialize};

use super::{CLOCKS_DIFFER_MS, Status, Task};
use crate::{WRITER, dropped, malformed, texts::cut};

const ERROR: usize = 1 << 10;

/// What the collector says of several answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Word {
    /// Empty if there is none.
    winner_id: String,
    error: String,
    duration_ms: i64,
}

/// `agent.response.completed` or `.failed`: what became of a task that was dispatched. Everything else is somebody else's.
pub(crate) fn answered(message: &Incoming, response: &AgentResponse) -> Result<(), Failure> {
    // Another id in it may say that it is a derivation's.
    if response.task_id.is_none() || response.task_id != delivery::order_key() {
        return Ok(());
    }
    let Some(mut task) = Task::load()? else { return Ok(()) };
    if !task.seen.first_time(message) {
        return dropped("duplicate");
    }
    let waits = matches!(task.status, Status::Queued | Status::InProgress);
    // What was said before anybody was asked is no answer to that.
    let after = |asked: Timestamp| asked.millis_since(message.arrival()) <= CLOCKS_DIFFER_MS;
    if !waits || !task.first_dispatch.is_some_and(after) {
        info!("nobody waits for this answer"; task_id = task.task_id, status = task.status);
        dropped(if waits { "undispatched" } else { "late" })?;
        return task.remember();
    }
    let cause = task.cause(message);
    if response.num_agents > 1 {
        task.several = true;
        if let Some(word) = task.word.take() {
            task.take_word(message, &cause, word)?;
        }
        return task.save(message);
    }
    match &response.answer {
        AgentAnswer::Text(_) => {
            let (agent, role) = (response.agent_id.clone(), response.role.clone());
            task.complete(&cause, agent, role, response.duration_ms, response.checks_passed)?;
        }
        AgentAnswer::Failed { error, error_type } => {
            let of_this = response.attempt.is_none_or(|attempt| attempt == task.attempt);
            // It was given up before, and waits or has gone again.
            if !of_this || task.agent_id.is_none() || !task.last_dispatch.is_some_and(after) {
                warn!("an attempt that was given up has failed"; task_id = task.task_id, error = error);
                dropped("late")?;
                return task.remember();
            }
            let kind = error_type.clone().unwrap_or_else(|| "agent_failed".into());
            task.fail(message, &cause, error, &kind, response.agent_id.clone())?;
        }
    }
    task.save(message)
}

/// `orchestration.deliberation.completed`: counts where several agents have answered for a task that was dispatched. Deliberations
/// from before it was are told of so, too.
pub(crate) fn collected(message: &Incoming, told: &DeliberationCompleted) -> Result<(), Failure> {
    message.keyed_by(&told.task_id).map_err(malformed)?;
    let concerns = |task: &Task| {
        let waits = matches!(task.status, Status::Queued | Status::InProgress);
        waits && task.last_dispatch.is_some_and(|asked| told.completed_at > asked)
    };
    let Some(mut task) = Task::load()?.filter(concerns) else { return Ok(()) };
    if !task.seen.first_time(message) {
        return dropped("duplicate");
    }
    let word = match (told.status.as_str(), told.winner_id.trim()) {
        ("failed", _) => {
            let error = told.error.clone().unwrap_or_else(|| "all agents failed".into());
            Word { error: cut(&error, ERROR), ..Word::default() }
        }
        // Nobody answered in time: our own time runs as well.
        (_, "") => return task.remember(),
        (_, winner) => Word { winner_id: winner.into(), duration_ms: told.duration_ms, ..Word::default() },
    };
    if !task.several {
        // The answers themselves may come after it.
        task.word = Some(word);
        return task.remember();
    }
    let cause = task.cause(message);
    task.take_word(message, &cause, word)?;
    task.save(message)
}

impl Task {
    fn take_word(&mut self, message: &Incoming, cause: &Cause, word: Word) -> Result<(), Failure> {
        if word.winner_id.is_empty() {
            if self.agent_id.is_none() {
                // It waits for another turn already.
                return dropped("late");
            }
            return self.fail(message, cause, &word.error, "agents_failed", None);
        }
        self.complete(cause, Some(word.winner_id), None, word.duration_ms, true)
    }

    fn complete(
        &mut self,
        cause: &Cause,
        agent_id: Option<String>,
        role: Option<String>,
        duration_ms: i64,
        checks_passed: bool,
    ) -> Result<(), Failure> {
        let agent_id = agent_id.or(self.agent_id.take()).unwrap_or_default();
        let completed = OrchestratedTaskCompleted {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            agent_id: agent_id.clone(),
            role: role
                .and_then(|name| Role::parse(&name))
                .map_or(self.role.clone(), |role| role.wire().into()),
            duration_ms,
            checks_passed,
            timestamp: Timestamp::now(),
        };
        WRITER.emit(cause, &completed, &format!("completed:{}", self.attempt))?;
        info!("completed"; task_id = self.task_id, story_id = self.story_id, agent_id = agent_id,
            attempt = self.attempt);
        self.end(Status::Completed, Timestamp::now())?;
        self.agent_id = Some(agent_id).filter(|agent| !agent.is_empty());
        // Nobody reads them any more, and whatever depends on the task looks at it.
        (self.title, self.description) = (String::new(), String::new());
        self.constraints = Default::default();
        Ok(())
    }

    pub(super) fn fail(
        &mut self,
        message: &Incoming,
        cause: &Cause,
        error: &str,
        error_type: &str,
        agent_id: Option<String>,
    ) -> Result<(), Failure> {
        let error = cut(error.trim(), ERROR);
        let failed = OrchestratedTaskFailed {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            agent_id: agent_id.or(self.agent_id.clone()).unwrap_or_default(),
            role: self.role.clone(),
            error: error.clone(),
            error_type: cut(error_type, ERROR),
            timestamp: Timestamp::now(),
        };
        WRITER.emit(cause, &failed, &format!("failed:{}", self.attempt))?;
        warn!("failed: {error}"; task_id = self.task_id, story_id = self.story_id, attempt = self.attempt);
        self.end(Status::Failed(error), message.arrival())
    }

    fn end(&mut self, status: Status, at: Timestamp) -> Result<(), Failure> {
        self.unwatch()?;
        let name = if status == Status::Completed { "COMPLETED" } else { "FAILED" };
        metrics::count("task_queue_ended", &[("status", name)])?;
        self.status = status;
        self.ended = Some(at);
        self.several = false;
        self.word = None;
        self.news = true;
        Ok(())
    }
}
