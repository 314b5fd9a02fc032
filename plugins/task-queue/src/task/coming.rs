//! How a task comes into the queue: Planning tells of it, or it is assigned.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Role, TaskAssigned, TaskCreated, Timestamp},
    info, warn,
};

use super::{Place, Status, Task, told};
use crate::{WRITER, dropped, malformed, own::Unexplained, settings};

/// `planning.task.created`: the task waits from now on. One that is known stays as it is, unless it has failed.
pub(crate) fn created(message: &Incoming, created: &TaskCreated) -> Result<(), Failure> {
    message.keyed_by(&created.task_id).map_err(malformed)?;
    told::named(message, "task", &created.task_id).map_err(malformed)?;
    told::named(message, "story", &created.story_id).map_err(malformed)?;
    let depends_on = told::dependencies(message, created).map_err(malformed)?;
    let mut task = Task::load()?.unwrap_or_else(|| Task::new(&created.task_id, &created.story_id, message));
    if !task.is_news(message) {
        return dropped("duplicate");
    }
    let first = !task.explained;
    if first && settings::is_history(message)? {
        // Others have seen to it, and whatever depends on it may go.
        task.explained = true;
        task.status = Status::Completed;
        dropped("history")?;
        return task.remember();
    }
    match &task.status {
        Status::Expected => {
            task.explain(message, created, depends_on);
            task.enqueue()?;
        }
        // It was assigned, and waits already. The queue has to look at it again before it goes.
        Status::Queued if first => {
            task.explain(message, created, depends_on);
            task.queue();
        }
        // The council was asked about nothing but a name, so it is asked again.
        Status::InProgress if first && task.agent_id.is_none() => {
            task.explain(message, created, depends_on);
            task.earlier_attempts = task.attempt;
            task.unwatch()?;
            task.queue();
        }
        Status::InProgress if first => task.explain(message, created, depends_on),
        Status::Failed(_) if task.is_asked_again(message) => {
            task.explain(message, created, depends_on);
            task.enqueue_again(Place::of(message))?;
        }
        _ => {
            dropped("known")?;
            task.asked = Some(Place::of(message)).max(task.asked);
            return task.remember();
        }
    }
    task.save(message)
}

/// `workflow.task.assigned`: a task that Planning has not told of waits a little for that; then it is taken as it is.
pub(crate) fn assigned(message: &Incoming, assigned: &TaskAssigned) -> Result<(), Failure> {
    message.keyed_by(&assigned.task_id).map_err(malformed)?;
    told::named(message, "task", &assigned.task_id).map_err(malformed)?;
    told::named(message, "story", &assigned.story_id).map_err(malformed)?;
    let asked = Asked::of(assigned);
    // A review is nothing to dispatch.
    if asked == Asked::Else || settings::is_history(message)? {
        return Ok(());
    }
    let Some(mut task) = Task::load()? else {
        // Rework of a task that was never queued is not begun by a queue.
        return if asked == Asked::Work { announce(message, assigned) } else { Ok(()) };
    };
    if !task.is_news(message) {
        return dropped("duplicate");
    }
    if !matches!(task.status, Status::Failed(_)) || !task.is_asked_again(message) {
        task.asked = Some(Place::of(message)).max(task.asked);
        return task.remember();
    }
    task.enqueue_again(Place::of(message))?;
    task.save(message)
}

/// A task that nobody has told of.
fn announce(message: &Incoming, assigned: &TaskAssigned) -> Result<(), Failure> {
    let mut task = Task::new(&assigned.task_id, &assigned.story_id, message);
    task.seen.first_time(message);
    task.score = told::score(told::priority(message));
    if !assigned.role.is_empty() {
        task.role = told::role(&assigned.role, &task.task_id);
    }
    task.requires_pre_deliberation = told::deliberation(message);
    let seconds = settings::assignment_grace()?;
    if seconds == 0 {
        task.enqueue()?;
    } else {
        let timer = Unexplained { task_id: task.task_id.clone(), story_id: task.story_id.clone() };
        let due = Timestamp::now().plus_seconds(seconds);
        task.timer = Some(WRITER.schedule(due, &task.cause, &timer, "unexplained")?);
    }
    task.save(message)
}

/// `cofferdam.queue.unexplained`: nobody else has told of it.
pub(crate) fn unexplained(message: &Incoming, timer: &Unexplained) -> Result<(), Failure> {
    message.keyed_by(&timer.task_id).map_err(malformed)?;
    let Some(mut task) = Task::load()?.filter(|task| task.status == Status::Expected) else { return Ok(()) };
    task.timer = None;
    warn!("Planning has not told of the task, so it is queued as it is: without a description, and without dependencies";
        task_id = task.task_id, story_id = task.story_id);
    task.enqueue()?;
    task.save(message)
}

/// What an assignment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// That the task is done.
    Work,
    /// That what was done is revised.
    Rework,
    /// A review, or what only another knows.
    Else,
}

impl Asked {
    /// By the label and by the action; the fleet's versions name one of them, both, or none.
    fn of(assigned: &TaskAssigned) -> Self {
        let names = [&assigned.required_action, &assigned.action_required]
            .map(|name| name.trim().to_ascii_uppercase().replace(['-', ' '], "_"));
        if names.iter().any(|name| name == "REVISE_CODE") {
            return Self::Rework;
        }
        let works = |name: &String| ["IMPLEMENT_FEATURE", "COMMIT_CODE", ""].contains(&name.as_str());
        if names.iter().all(works) { Self::Work } else { Self::Else }
    }
}

impl Task {
    /// Whether the message repeats none from before. One without a key, stored after the task failed, is no repeat of what asked for
    /// it before that: whoever sends bare messages says the same again to have it done again.
    fn is_news(&mut self, message: &Incoming) -> bool {
        let since = match self.ended {
            Some(ended) if message.cause().key.is_none() && matches!(self.status, Status::Failed(_)) => ended,
            _ => Timestamp::default(),
        };
        self.seen.first_time_since(message, since)
    }

    /// Whether a message asks for it once more, now that it has failed. One that was on its way before that does not.
    fn is_asked_again(&self, message: &Incoming) -> bool {
        self.ended.is_none_or(|ended| message.arrival() > ended)
    }

    fn enqueue(&mut self) -> Result<(), Failure> {
        self.unwatch()?;
        if self.role.is_empty() {
            self.role = Role::Developer.wire().into();
        }
        self.queue();
        info!("queued"; task_id = self.task_id, story_id = self.story_id, score = self.score,
            dependencies = self.depends_on.len());
        Ok(())
    }

    pub(super) fn enqueue_again(&mut self, place: Place) -> Result<(), Failure> {
        self.place = place;
        self.earlier_attempts = self.attempt;
        (self.first_dispatch, self.last_dispatch) = (None, None);
        (self.unheard, self.ended, self.asked) = (0, None, None);
        self.enqueue()
    }
}
