//! How a task ends: an agent answers, or all have failed that were asked.

use cofferdam_sdk::{
    Failure, delivery,
    fleet::{
        AgentAnswer, AgentResponse, Cause, Incoming, OrchestratedTaskCompleted, OrchestratedTaskFailed, Role,
        Timestamp,
    },
    info, metrics, warn,
};

use super::{CLOCKS_DIFFER_MS, Status, Task};
use crate::{WRITER, dropped, malformed, texts::cut};

const ERROR: usize = 1 << 10;
/// More agents than the fleet ever asks, and bytes of one's name.
const AGENTS: usize = 64;
const AGENT: usize = 256;

/// `agent.response.completed` or `.failed`: what became of a task that was dispatched. Everything else is somebody else's. Where
/// several agents were asked, the first that is through completes it; which of their answers is best is the collector's affair.
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
            if !task.all_failed(response.agent_id.as_deref(), response.num_agents) {
                info!("an agent has failed, and others may not"; task_id = task.task_id, error = error,
                    failed = task.failed_agents.len(), of = response.num_agents);
                return task.remember();
            }
            let kind = error_type.clone().unwrap_or_else(|| "agent_failed".into());
            task.fail(message, &cause, error, &kind, response.agent_id.clone())?;
        }
    }
    task.save(message)
}

/// `workflow.task.completed`: one that was cancelled is not begun, and what waits for it goes on without it. Otherwise the agents'
/// own word counts.
pub(crate) fn over(message: &Incoming) -> Result<(), Failure> {
    let task_id = message.required(&["task_id"]).map_err(malformed)?;
    message.keyed_by(&task_id).map_err(malformed)?;
    if message.text(&["final_state"]).is_none_or(|state| !state.eq_ignore_ascii_case("cancelled")) {
        return Ok(());
    }
    let story_id = message.text(&["story_id"]).unwrap_or_default();
    // It may be known here only later, and is not to be begun then.
    let mut task = Task::load()?.unwrap_or_else(|| Task::new(&task_id, &story_id, message));
    if matches!(task.status, Status::Completed | Status::Cancelled) {
        return Ok(());
    }
    info!("cancelled"; task_id = task_id, story_id = task.story_id, status = task.status);
    task.end(Status::Cancelled, message.arrival())?;
    task.save(message)
}

impl Task {
    /// Notes that one of so many agents has failed. Whether all have.
    fn all_failed(&mut self, agent_id: Option<&str>, of: u32) -> bool {
        let agent_id = agent_id.or(self.agent_id.as_deref()).unwrap_or_default();
        let agent_id = cut(agent_id, AGENT);
        let of = usize::try_from(of).unwrap_or(AGENTS).clamp(1, AGENTS);
        if !self.failed_agents.contains(&agent_id) {
            self.failed_agents.push(agent_id);
        }
        self.failed_agents.len() >= of
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
        self.end(Status::Failed(error), message.arrival())?;
        // What asks for it once more may be heard before what it failed by: they come by subjects of their own.
        match self.asked.take().filter(|asked| asked.time() > message.arrival()) {
            Some(asked) => self.enqueue_again(asked),
            None => Ok(()),
        }
    }

    fn end(&mut self, status: Status, at: Timestamp) -> Result<(), Failure> {
        self.unwatch()?;
        let name = match status {
            Status::Completed => "COMPLETED",
            Status::Cancelled => "CANCELLED",
            _ => "FAILED",
        };
        metrics::count("task_queue_ended", &[("status", name)])?;
        self.status = status;
        self.ended = Some(at);
        self.failed_agents.clear();
        self.news = true;
        Ok(())
    }
}
