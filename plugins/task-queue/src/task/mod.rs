//! A task's aggregate, the cell `task/<task_id>`: what is known of it and how it stands. How it comes into the queue is in
//! [`coming`], what happens when it is its turn in [`going`], how it ends in [`ending`].

mod coming;
mod ending;
mod going;
mod place;
mod status;
mod told;

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, QueueConstraints, Seen, Timestamp},
    publish::{self, EmitError},
    state, warn,
};
use serde::{Deserialize, Serialize};

use crate::{WRITER, own::Changed, queue, settings};

pub(crate) use coming::{assigned, created, unexplained};
pub(crate) use ending::{answered, over};
pub(crate) use going::{deliberated, go, overdue};
pub(crate) use place::Place;
pub(crate) use status::Status;

const KEY: &str = "task";
const SCHEMA: u32 = 1;
/// Of streams that different servers lead.
const CLOCKS_DIFFER_MS: u64 = 5_000;

/// All that is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Task {
    schema: u32,
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    plan_id: Option<String>,
    pub(crate) status: Status,
    /// As the orchestrator knows it: `DEV`.
    pub(crate) role: String,
    /// 1 to 10; the greatest goes first.
    pub(crate) score: u8,
    pub(crate) depends_on: Vec<String>,
    title: String,
    description: String,
    constraints: QueueConstraints,
    requires_pre_deliberation: Option<bool>,
    /// Planning has told of it.
    explained: bool,
    /// Since when it waits.
    pub(crate) place: Place,
    /// How often it has come to wait: what the queue says to an earlier turn has no meaning any more.
    pub(crate) turn: u32,
    /// How often it has gone.
    pub(crate) attempt: u32,
    /// How often it had when it was enqueued.
    earlier_attempts: u32,
    /// Who has it, in this attempt.
    pub(crate) agent_id: Option<String>,
    /// When it was dispatched first since it was enqueued, and last unless it has gone again.
    first_dispatch: Option<Timestamp>,
    last_dispatch: Option<Timestamp>,
    /// Of several agents who were asked in this attempt, those that failed.
    failed_agents: Vec<String>,
    /// How often in a row nobody proposed anything in time.
    unheard: u32,
    /// What wakes it up if nothing else does, and which of all it has had that is.
    timer: Option<String>,
    watch: u32,
    ended: Option<Timestamp>,
    /// When it was asked for last while it was not over yet. If it proves to have failed before that, it is asked for again.
    asked: Option<Place>,
    pub(crate) updated_at: Timestamp,
    cause: Cause,
    /// Counts what the queue was told.
    version: u64,
    seen: Seen,
    /// The queue has to know of what this event does.
    #[serde(skip)]
    news: bool,
}

impl Task {
    /// One that nobody has told of before.
    fn new(task_id: &str, story_id: &str, message: &Incoming) -> Self {
        Self {
            task_id: task_id.into(),
            story_id: story_id.into(),
            place: Place::of(message),
            cause: message.cause(),
            ..Self::default()
        }
    }

    /// The task of the cell of this event or call.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        let task: Option<Self> = state::load(KEY)?;
        match task {
            // An older version hands back what it can't read.
            Some(Self { schema, .. }) if schema > SCHEMA => Err(newer(schema)),
            task => Ok(task),
        }
    }

    /// What of this event's message correlates with what there was before.
    fn cause(&self, message: &Incoming) -> Cause {
        message.cause().continuing(&self.cause)
    }

    /// Keeps the task as it is now, and tells the queue if that has to know.
    fn save(mut self, message: &Incoming) -> Result<(), Failure> {
        self.schema = SCHEMA;
        if std::mem::take(&mut self.news) {
            self.version += 1;
            self.updated_at = Timestamp::now();
            let changed = Changed {
                queue: queue::MAIN.into(),
                task_id: self.task_id.clone(),
                story_id: self.story_id.clone(),
                status: self.status.to_string(),
                turned_away: 0,
            };
            WRITER.emit(&self.cause(message), &changed, &format!("changed:{}", self.version))?;
        }
        Ok(state::save(KEY, &self)?)
    }

    /// Keeps that a message came that changed nothing else.
    fn remember(mut self) -> Result<(), Failure> {
        self.schema = SCHEMA;
        Ok(state::save(KEY, &self)?)
    }

    /// Waits for its turn.
    fn queue(&mut self) {
        self.status = Status::Queued;
        self.turn += 1;
        self.agent_id = None;
        self.news = true;
    }

    /// Takes back the timer that runs, if one does.
    fn unwatch(&mut self) -> Result<(), Failure> {
        let Some(timer) = self.timer.take() else { return Ok(()) };
        match publish::cancel(&timer) {
            // Set under another name of the plugin: it fires, and has no effect.
            Err(EmitError::Denied(why)) => warn!("a timer can't be taken back: {why}"; timer = timer),
            cancelled => cancelled?,
        }
        Ok(())
    }

    fn deliberates(&self) -> Result<bool, Failure> {
        Ok(match self.requires_pre_deliberation {
            Some(requires) => requires,
            None => settings::requires_pre_deliberation()?,
        })
    }
}

/// What the queue has to know of a task, without its texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Glance {
    schema: u32,
    pub(crate) story_id: String,
    pub(crate) status: Status,
    pub(crate) score: u8,
    pub(crate) depends_on: Vec<String>,
    pub(crate) place: Place,
    pub(crate) turn: u32,
}

impl Glance {
    /// At a task by its name.
    pub(crate) fn at(task_id: &str) -> Result<Option<Self>, Failure> {
        let glance: Option<Self> = state::cell(format!("task/{task_id}")).load(KEY)?;
        match glance {
            Some(Self { schema, .. }) if schema > SCHEMA => Err(newer(schema)),
            glance => Ok(glance),
        }
    }
}

fn newer(schema: u32) -> Failure {
    Failure::retry(format!("the task has schema {schema}, this version knows up to {SCHEMA}"))
}
