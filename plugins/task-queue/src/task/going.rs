//! What happens when it is a task's turn: a council proposes, if one is to be asked; an agent is told; and whoever takes too long
//! loses it.

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, QueueDeliberated, QueueReady, TaskDispatched, Timestamp},
    info, metrics, warn,
};

use super::{Place, Status, Task};
use crate::{
    WRITER, dropped, malformed,
    own::{Blocked, Go, Overdue},
    settings,
    texts::cut,
};

/// Of a proposal, as JSON: it is in the message twice, beside the description, and an event commits 960 KiB.
const PROPOSAL: usize = 256 << 10;
const NO_WINNER: &str = "no_winner";
/// A council may be slow once; when nobody has answered so often in a row, none seems to run.
const NO_COUNCIL: u32 = 2;

/// `cofferdam.queue.go`: its turn has come.
pub(crate) fn go(message: &Incoming, go: &Go) -> Result<(), Failure> {
    message.keyed_by(&go.task_id).map_err(malformed)?;
    let Some(mut task) = Task::load()?.filter(|task| task.status == Status::Queued && task.turn == go.turn)
    else {
        // It ended meanwhile, or has to be looked at again: the queue hears of that, or has heard.
        info!("this turn of the task is over"; task_id = go.task_id, turn = go.turn);
        return Ok(());
    };
    let cause = task.cause(message);
    task.status = Status::InProgress;
    task.attempt += 1;
    task.agent_id = None;
    task.last_dispatch = None;
    task.failed_agents.clear();
    task.updated_at = Timestamp::now();
    if task.deliberates()? {
        let ready = QueueReady {
            task_id: task.task_id.clone(),
            story_id: task.story_id.clone(),
            plan_id: task.plan_id.clone(),
            role: task.role.clone(),
            description: task.text(),
            constraints: task.constraints.clone(),
            attempt: task.attempt,
            timestamp: Timestamp::now(),
        };
        WRITER.emit(&cause, &ready, &format!("ready:{}", task.attempt))?;
        info!("a council is to propose first"; task_id = task.task_id, role = task.role, attempt = task.attempt);
        task.watch_over(&cause)?;
    } else {
        let agent = format!("agent-{}-001", task.role.to_lowercase());
        task.dispatch(&cause, agent, None)?;
    }
    task.save(message)
}

/// `cofferdam.queue.deliberated`: a council has proposed, or could not.
pub(crate) fn deliberated(message: &Incoming, told: &QueueDeliberated) -> Result<(), Failure> {
    message.keyed_by(&told.task_id).map_err(malformed)?;
    let Some(mut task) = Task::load()? else { return Ok(()) };
    if !task.seen.first_time(message) {
        return dropped("duplicate");
    }
    task.unheard = 0;
    if !task.waits_for_council(told) {
        info!("nobody waits for this proposal any more"; task_id = told.task_id, attempt = told.attempt);
        dropped("late")?;
        return task.remember();
    }
    let cause = task.cause(message);
    let error = told.error.clone().or_else(|| {
        told.agent_id.trim().is_empty().then(|| "the council named neither a winner nor an error".to_owned())
    });
    match error {
        Some(error) => {
            let kind = told.error_type.clone().unwrap_or_else(|| NO_WINNER.into());
            task.fail(message, &cause, &error, &kind, None)?;
        }
        None => {
            let proposal = cut(&told.proposal, PROPOSAL);
            if proposal != told.proposal {
                warn!("the proposal has {} bytes and is cut", told.proposal.len(); task_id = task.task_id);
            }
            let proposal = Some(proposal).filter(|proposal| !proposal.trim().is_empty());
            task.dispatch(&cause, told.agent_id.clone(), proposal)?;
        }
    }
    task.save(message)
}

/// `cofferdam.queue.overdue`: whoever has the task is not heard of any more. It waits for another turn, behind its equals.
pub(crate) fn overdue(message: &Incoming, timer: &Overdue) -> Result<(), Failure> {
    message.keyed_by(&timer.task_id).map_err(malformed)?;
    // One that was to be taken back may have fired before; then there is a later one.
    let is_due = |task: &Task| task.status == Status::InProgress && task.watch == timer.watch;
    let Some(mut task) = Task::load()?.filter(is_due) else { return Ok(()) };
    task.timer = None;
    metrics::count("task_queue_returned", &[])?;
    match task.agent_id.take() {
        Some(agent) => {
            warn!("the agent has not answered in time, so the task is queued again"; task_id = task.task_id,
                story_id = task.story_id, attempt = task.attempt, agent_id = agent);
        }
        None => task.miss_council(message)?,
    }
    task.place = Place::of(message);
    task.queue();
    task.save(message)
}

impl Task {
    /// A proposal for an earlier attempt is as good, if it came too late for that: or a slow council would never be heard.
    fn waits_for_council(&self, told: &QueueDeliberated) -> bool {
        let of_this = told.attempt == self.attempt;
        let of_earlier =
            told.error.is_none() && (self.earlier_attempts + 1..self.attempt).contains(&told.attempt);
        self.status == Status::InProgress && self.agent_id.is_none() && (of_this || of_earlier)
    }

    /// Nobody has proposed anything in time. That is told of once, or who set the queue up without a council would never know.
    fn miss_council(&mut self, message: &Incoming) -> Result<(), Failure> {
        self.unheard += 1;
        warn!("no council has answered in time, so the task is queued again"; task_id = self.task_id,
            story_id = self.story_id, attempt = self.attempt, role = self.role, times = self.unheard);
        if self.unheard != NO_COUNCIL {
            return Ok(());
        }
        let blocked = Blocked {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            behind: Vec::new(),
            error: format!(
                "nobody has answered cofferdam.queue.ready in time, {NO_COUNCIL} times in a row: no council seems to run, or its \
                 model is out of reach; see to the plugin council, or set requires_pre_deliberation = false for task-queue"
            ),
            timestamp: Timestamp::now(),
        };
        blocked.tell(&self.cause(message), &format!("unheard:{}", self.attempt))
    }

    fn dispatch(&mut self, cause: &Cause, agent_id: String, proposal: Option<String>) -> Result<(), Failure> {
        let now = Timestamp::now();
        let dispatched = TaskDispatched {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            plan_id: self.plan_id.clone(),
            agent_id: agent_id.clone(),
            role: self.role.clone(),
            description: self.text(),
            proposal,
            attempt: self.attempt,
            timestamp: now,
        };
        WRITER.emit(cause, &dispatched, &format!("dispatched:{}", self.attempt))?;
        metrics::count("task_queue_dispatched", &[])?;
        info!("dispatched"; task_id = self.task_id, story_id = self.story_id, agent_id = agent_id,
            attempt = self.attempt);
        self.agent_id = Some(agent_id);
        self.first_dispatch.get_or_insert(now);
        self.last_dispatch = Some(now);
        self.updated_at = now;
        self.watch_over(cause)
    }

    /// The time for what is to happen now begins.
    fn watch_over(&mut self, cause: &Cause) -> Result<(), Failure> {
        self.unwatch()?;
        self.watch += 1;
        let due = Timestamp::now().plus_seconds(settings::in_progress_timeout()?);
        let timer = Overdue {
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            attempt: self.attempt,
            watch: self.watch,
        };
        self.timer = Some(WRITER.schedule(due, cause, &timer, &format!("overdue:{}", self.watch))?);
        Ok(())
    }
}
