//! A task's aggregate, the cell `task/<task_id>`: how it opens, and how it moves through the machine.

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, StateChanged, TaskAssigned, TaskCreated, Timestamp},
    info, metrics, state,
};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, dropped,
    machine::{self, Action, Actor, State},
    malformed,
    own::{Open, Opened},
};

const KEY: &str = "task";
const SCHEMA: u32 = 1;

/// All that is known of a task's workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    schema: u32,
    task_id: String,
    story_id: String,
    plan_id: Option<String>,
    title: Option<String>,
    /// 1 is the highest.
    priority: Option<i64>,
    depends_on: Vec<String>,
    state: State,
    history: Vec<Hop>,
    feedback: Option<String>,
    retry_count: u32,
    opened_at: Timestamp,
    updated_at: Timestamp,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hop {
    from: State,
    to: State,
    action: Action,
    actor: Actor,
    at: Timestamp,
    feedback: Option<String>,
}

/// `planning.task.created`: opens the task and assigns it at once, even where its story opened it before.
pub(crate) fn created(message: &Incoming, created: TaskCreated) -> Result<(), Failure> {
    message.keyed_by(&created.task_id).map_err(malformed)?;
    if let Some(mut task) = Task::load()?.filter(Task::is_untouched) {
        task.adopt(created);
        task.apply(&message.cause(), Action::AssignToDeveloper, Actor::System)?;
        state::save(KEY, &task)?;
        info!("assigned, its story had opened it"; task_id = task.task_id, story_id = task.story_id);
        return Ok(());
    }
    let mut task = Task::new(created.task_id.clone(), created.story_id.clone());
    task.adopt(created);
    start(message, task, true)
}

/// `cofferdam.workflow.open`: its story is ready for execution.
pub(crate) fn open(message: &Incoming, open: Open) -> Result<(), Failure> {
    message.keyed_by(&open.task_id).map_err(malformed)?;
    start(message, Task::new(open.task_id, open.story_id), open.assign)
}

/// Opens a task as `todo`, tells its story, and assigns it if asked to. An existing task stays as it is: whatever opens
/// it again, a repeated message or another way in, has no effect.
fn start(message: &Incoming, mut task: Task, assign: bool) -> Result<(), Failure> {
    if state::get(KEY)?.is_some() {
        info!("the task is open already"; task_id = task.task_id);
        return dropped("duplicate");
    }
    let cause = message.cause();
    if assign {
        task.apply(&cause, Action::AssignToDeveloper, Actor::System)?;
    }
    let opened = Opened {
        task_id: task.task_id.clone(),
        story_id: task.story_id.clone(),
        state: task.state.name().into(),
    };
    WRITER.emit(&cause, &opened, "opened")?;
    state::save(KEY, &task)?;
    info!("opened"; task_id = task.task_id, story_id = task.story_id, state = task.state.name());
    Ok(())
}

impl Task {
    fn new(task_id: String, story_id: String) -> Self {
        let now = Timestamp::now();
        Self {
            schema: SCHEMA,
            task_id,
            story_id,
            plan_id: None,
            title: None,
            priority: None,
            depends_on: Vec::new(),
            state: State::Todo,
            history: Vec::new(),
            feedback: None,
            retry_count: 0,
            opened_at: now,
            updated_at: now,
        }
    }

    /// The task of the event's cell.
    fn load() -> Result<Option<Self>, Failure> {
        let task: Option<Self> = state::load(KEY)?;
        match task {
            // An older version hands back what it can't read.
            Some(Self { schema, .. }) if schema > SCHEMA => Err(Failure::retry(format!(
                "the task has schema {schema}, this version knows up to {SCHEMA}"
            ))),
            task => Ok(task),
        }
    }

    /// Opened, and nothing since.
    fn is_untouched(&self) -> bool {
        self.state == State::Todo && self.history.is_empty()
    }

    /// What Planning says of the task, which its story does not know.
    fn adopt(&mut self, created: TaskCreated) {
        self.plan_id = created.plan_id.or(self.plan_id.take());
        self.title = created.title.or(self.title.take());
        self.priority = created.priority.or(self.priority);
        if !created.depends_on.is_empty() {
            self.depends_on = created.depends_on;
        }
    }

    /// Moves the task and tells it: the hop first, then, where the new state is somebody's to work on, the assignment.
    fn apply(&mut self, cause: &Cause, action: Action, actor: Actor) -> Result<(), Failure> {
        let from = self.state;
        let Some(to) = machine::next(from, action, actor) else {
            let (action, actor, state) = (action.name(), actor.name(), from.name());
            return Err(Failure::reject(format!("{action} by {actor} is not possible in state {state}")));
        };
        self.state = to;
        self.updated_at = Timestamp::now();
        self.history.push(Hop { from, to, action, actor, at: self.updated_at, feedback: None });
        // Two moves of one task may have the same names; the length of its history tells them apart.
        let count = self.history.len();
        let duty = to.duty();
        let changed = StateChanged {
            event_type: "workflow.state.changed".into(),
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            from_state: from.name().into(),
            to_state: to.name().into(),
            action: action.name().into(),
            actor_role: actor.name().into(),
            role_in_charge: duty.map_or("", |duty| duty.role.name()).into(),
            required_action: duty.map_or("", |duty| duty.action).into(),
            feedback: self.feedback.clone().unwrap_or_default(),
            retry_count: self.retry_count,
            timestamp: self.updated_at,
        };
        WRITER.emit(cause, &changed, &format!("state_changed:{count}"))?;
        if let Some(duty) = duty {
            let assigned = TaskAssigned::new(
                &self.task_id,
                &self.story_id,
                duty.role.name(),
                duty.label,
                duty.action,
                to.name(),
            );
            WRITER.emit(cause, &assigned, &format!("assigned:{count}"))?;
        }
        Ok(metrics::count("workflow_transitions", &[])?)
    }
}
