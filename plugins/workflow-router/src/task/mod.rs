//! A task's aggregate, the cell `task/<task_id>`: what is known of it, and how it opens. How it moves is in [`moving`].

mod moving;
mod telling;

use cofferdam_sdk::{
    Failure,
    fleet::{Artifacts, Cause, Incoming, Seen, TaskCreated, Timestamp},
    info, state,
};
use serde::{Deserialize, Serialize};

use crate::{
    dropped,
    figures::Figures,
    machine::{ASSIGN, Machine},
    malformed,
    own::{Open, Opened},
    settings,
};

pub(crate) use moving::{Act, Applied};
use telling::Told;

const KEY: &str = "task";
const SCHEMA: u32 = 1;

/// All that is known of a task's workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    schema: u32,
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    plan_id: Option<String>,
    title: Option<String>,
    /// 1 is the highest.
    pub(crate) priority: Option<i64>,
    depends_on: Vec<String>,
    pub(crate) state: String,
    /// When it came into its state, by the host's clock.
    #[serde(default)]
    since: Option<Timestamp>,
    /// Who has claimed what is to be done now.
    #[serde(default)]
    pub(crate) claimed_by: Option<String>,
    #[serde(default)]
    pub(crate) claimed_at: Option<Timestamp>,
    /// The last ones.
    pub(crate) history: Vec<Hop>,
    /// How many there have ever been.
    #[serde(default)]
    pub(crate) hops: u64,
    pub(crate) feedback: Option<String>,
    pub(crate) retry_count: u32,
    opened_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// By its own clock, of the last message of an agent that moved it.
    #[serde(default)]
    pub(crate) acted_at: Option<Timestamp>,
    /// It has been somebody else's than its first owner's.
    #[serde(default)]
    left: bool,
    /// What was handed in last.
    #[serde(default)]
    pub(crate) work: Option<Artifacts>,
    #[serde(default)]
    pub(crate) figures: Figures,
    /// Since when the role that is in charge has been.
    #[serde(default)]
    in_charge_since: Option<Timestamp>,
    /// The timer that tells of it if it rests here for long.
    #[serde(default)]
    alert: Option<String>,
    /// Of its picture on the board.
    #[serde(default)]
    version: u64,
    #[serde(default)]
    pub(crate) seen: Seen,
    /// What this event has to tell.
    #[serde(skip)]
    told: Vec<Told>,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hop {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) action: String,
    pub(crate) actor: String,
    /// When the actor says that it was.
    pub(crate) at: Timestamp,
    pub(crate) feedback: Option<String>,
}

/// `planning.task.created`: opens the task and assigns it at once, even where its story opened it before.
pub(crate) fn created(message: &Incoming, created: TaskCreated) -> Result<(), Failure> {
    message.keyed_by(&created.task_id).map_err(malformed)?;
    if let Some(mut task) = Task::load()?.filter(Task::is_untouched) {
        task.adopt(created);
        let machine = settings::machine()?;
        task.assign(&machine)?;
        info!("assigned, its story had opened it"; task_id = task.task_id, story_id = task.story_id);
        return task.save(&machine, &message.cause());
    }
    if let Some(mut task) = Task::load()?.filter(|task| task.learns(&created)) {
        task.adopt(created);
        info!("its story had opened and assigned it"; task_id = task.task_id, story_id = task.story_id);
        return task.save(&settings::machine()?, &message.cause());
    }
    let mut task = Task::new(created.task_id.clone(), created.story_id.clone());
    task.adopt(created);
    if start(message, task, true)? { Ok(()) } else { dropped("duplicate") }
}

/// `cofferdam.workflow.open`: its story is ready for execution.
pub(crate) fn open(message: &Incoming, open: Open) -> Result<(), Failure> {
    message.keyed_by(&open.task_id).map_err(malformed)?;
    if let Some(mut task) = Task::load()?.filter(|task| task.is_untouched() && open.assign) {
        let machine = settings::machine()?;
        task.assign(&machine)?;
        info!("assigned, its turn has come"; task_id = task.task_id, story_id = task.story_id);
        return task.save(&machine, &message.cause());
    }
    // Its story asks all of its tasks, so one that is open already is nothing to count.
    start(message, Task::new(open.task_id, open.story_id), open.assign).map(drop)
}

/// Opens a task as `todo`, tells its story, and assigns it if asked to. An existing task stays as it is: whatever opens
/// it again, a repeated message or another way in, has no effect. Whether it was new.
fn start(message: &Incoming, mut task: Task, assign: bool) -> Result<bool, Failure> {
    if state::get(KEY)?.is_some() {
        info!("the task is open already"; task_id = task.task_id);
        return Ok(false);
    }
    let machine = settings::machine()?;
    task.state = machine.initial().to_owned();
    if assign {
        task.assign(&machine)?;
    }
    let opened =
        Opened { task_id: task.task_id.clone(), story_id: task.story_id.clone(), state: task.state.clone() };
    task.told.push(Told::Opened(opened));
    info!("opened"; task_id = task.task_id, story_id = task.story_id, state = task.state);
    task.save(&machine, &message.cause())?;
    Ok(true)
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
            state: String::new(),
            since: Some(now),
            claimed_by: None,
            claimed_at: None,
            history: Vec::new(),
            hops: 0,
            feedback: None,
            retry_count: 0,
            opened_at: now,
            updated_at: now,
            acted_at: None,
            left: false,
            work: None,
            figures: Figures::default(),
            in_charge_since: None,
            alert: None,
            version: 0,
            seen: Seen::default(),
            told: Vec::new(),
        }
    }

    /// The task of the cell of this event or call.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        Self::known(state::load(KEY)?)
    }

    /// A task by its name.
    pub(crate) fn named(task_id: &str) -> Result<Option<Self>, Failure> {
        Self::known(state::cell(format!("task/{task_id}")).load(KEY)?)
    }

    fn known(task: Option<Self>) -> Result<Option<Self>, Failure> {
        match task {
            // An older version hands back what it can't read.
            Some(Self { schema, .. }) if schema > SCHEMA => Err(Failure::retry(format!(
                "the task has schema {schema}, this version knows up to {SCHEMA}"
            ))),
            // One of an earlier version has all its hops, and did not count them.
            task => Ok(task.map(|task| Self { hops: task.hops.max(task.history.len() as u64), ..task })),
        }
    }

    /// Keeps that a message came that changed nothing else.
    pub(crate) fn remember(&self) -> Result<(), Failure> {
        Ok(state::save(KEY, self)?)
    }

    /// Keeps the task as it is now, and tells what has happened to it since it was loaded.
    pub(crate) fn save(mut self, machine: &Machine, cause: &Cause) -> Result<(), Failure> {
        self.tell(machine, cause)?;
        Ok(state::save(KEY, &self)?)
    }

    /// Opened, and nothing since.
    fn is_untouched(&self) -> bool {
        self.history.is_empty()
    }

    pub(crate) fn is_over(&self, machine: &Machine) -> bool {
        machine.end(&self.state).is_some()
    }

    /// When it came into its state.
    pub(crate) fn since(&self) -> Timestamp {
        self.since.unwrap_or(self.updated_at)
    }

    /// Planning has said nothing of it yet, and does now.
    fn learns(&self, created: &TaskCreated) -> bool {
        let nothing = self.plan_id.is_none() && self.title.is_none() && self.priority.is_none();
        nothing && (created.plan_id.is_some() || created.title.is_some() || created.priority.is_some())
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

    /// Gives it to its first owner.
    fn assign(&mut self, machine: &Machine) -> Result<(), Failure> {
        match self.apply(machine, &Act::of_system(ASSIGN)) {
            Applied::Done => Ok(()),
            // No table is without, but a task may rest in a state of an earlier one.
            Applied::NotTheirs | Applied::NotHere => Err(Failure::reject(format!(
                "{ASSIGN} is not possible in the state {:?} of task {:?}; add the move to the machine",
                self.state, self.task_id
            ))),
        }
    }
}
