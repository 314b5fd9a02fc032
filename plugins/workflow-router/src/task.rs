//! A task's aggregate, the cell `task/<task_id>`: how it opens, and how it moves through the machine.

use cofferdam_sdk::{
    Failure,
    fleet::{
        Cause, Incoming, Seen, StateChanged, TaskAssigned, TaskCompleted, TaskCreated, Timestamp,
        ValidationRequired,
    },
    info, metrics, state,
};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, dropped,
    machine::{Feedback, Machine, Move, Step},
    malformed,
    own::{Moved, Open, Opened},
    settings,
};

pub(crate) const KEY: &str = "task";
const SCHEMA: u32 = 1;
pub(crate) const ASSIGN: &str = "assign_to_developer";
pub(crate) const SYSTEM: &str = "system";

/// All that is known of a task's workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    schema: u32,
    pub(crate) task_id: String,
    pub(crate) story_id: String,
    plan_id: Option<String>,
    title: Option<String>,
    /// 1 is the highest.
    priority: Option<i64>,
    depends_on: Vec<String>,
    pub(crate) state: String,
    /// Who has claimed what is to be done now.
    #[serde(default)]
    claimed_by: Option<String>,
    history: Vec<Hop>,
    feedback: Option<String>,
    retry_count: u32,
    opened_at: Timestamp,
    updated_at: Timestamp,
    /// By its own clock, of the last message of an agent that moved it.
    #[serde(default)]
    pub(crate) acted_at: Option<Timestamp>,
    /// It has been somebody else's than its first owner's.
    #[serde(default)]
    left: bool,
    #[serde(default)]
    pub(crate) seen: Seen,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hop {
    from: String,
    to: String,
    action: String,
    actor: String,
    at: Timestamp,
    feedback: Option<String>,
}

/// `planning.task.created`: opens the task and assigns it at once, even where its story opened it before.
pub(crate) fn created(message: &Incoming, created: TaskCreated) -> Result<(), Failure> {
    message.keyed_by(&created.task_id).map_err(malformed)?;
    if let Some(mut task) = Task::load()?.filter(Task::is_untouched) {
        task.adopt(created);
        task.assign(&settings::machine()?, &message.cause())?;
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
    if let Some(mut task) = Task::load()?.filter(|task| task.is_untouched() && open.assign) {
        task.assign(&settings::machine()?, &message.cause())?;
        info!("assigned, its turn has come"; task_id = task.task_id, story_id = task.story_id);
        return Ok(state::save(KEY, &task)?);
    }
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
    let machine = settings::machine()?;
    task.state = machine.initial().to_owned();
    if assign {
        task.assign(&machine, &cause)?;
    }
    let opened =
        Opened { task_id: task.task_id.clone(), story_id: task.story_id.clone(), state: task.state.clone() };
    WRITER.emit(&cause, &opened, "opened")?;
    state::save(KEY, &task)?;
    info!("opened"; task_id = task.task_id, story_id = task.story_id, state = task.state);
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
            state: String::new(),
            claimed_by: None,
            history: Vec::new(),
            feedback: None,
            retry_count: 0,
            opened_at: now,
            updated_at: now,
            acted_at: None,
            left: false,
            seen: Seen::default(),
        }
    }

    /// The task of the event's cell.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
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
        self.history.is_empty()
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
    fn assign(&mut self, machine: &Machine, cause: &Cause) -> Result<(), Failure> {
        match self.apply(machine, cause, &Act::of_system(ASSIGN))? {
            Applied::Done => Ok(()),
            Applied::NotTheirs | Applied::NotHere => {
                let state = &self.state;
                Err(Failure::reject(format!(
                    "the machine has no {ASSIGN} by {SYSTEM} in state {state:?}; add one"
                )))
            }
        }
    }

    /// Moves the task as far as it goes by itself, and tells it: each hop first, then what is to be done where it rests.
    /// Gives nothing, and does nothing, if this is not to be done here, or not by this role.
    pub(crate) fn apply(
        &mut self,
        machine: &Machine,
        cause: &Cause,
        act: &Act<'_>,
    ) -> Result<Applied, Failure> {
        let moves = match machine.step(&self.state, act.action, act.role) {
            Step::Moves(moves) => moves,
            Step::NotTheirs => return Ok(Applied::NotTheirs),
            Step::NotHere => return Ok(Applied::NotHere),
        };
        if let [claim] = moves.as_slice()
            && claim.claims
            && claim.to == self.state
        {
            self.claimed_by = act.agent.map(str::to_owned);
            return Ok(Applied::Done);
        }
        let mut assigns = false;
        for row in moves {
            assigns = self.hop(machine, cause, row, act)?;
            if let Some(then) = &row.then {
                let system = Act::of_system(then);
                if let Step::Moves(more) = machine.step(&self.state, then, SYSTEM) {
                    for row in more {
                        assigns = self.hop(machine, cause, row, &system)?;
                    }
                }
            }
        }
        while let Some(row) = machine.automatic(&self.state) {
            assigns = self.hop(machine, cause, row, &Act::of_system(&row.action))?;
        }
        self.tell(machine, cause, assigns)?;
        Ok(Applied::Done)
    }

    /// Whether it is an assignment.
    fn hop(&mut self, machine: &Machine, cause: &Cause, row: &Move, act: &Act<'_>) -> Result<bool, Failure> {
        let from = std::mem::replace(&mut self.state, row.to.clone());
        let asked_for = row.action == act.action;
        let feedback = act.feedback.filter(|_| asked_for).map(str::to_owned);
        match row.feedback {
            Some(Feedback::Keep) => self.feedback.clone_from(&feedback),
            Some(Feedback::Clear) => self.feedback = None,
            None => {}
        }
        self.retry_count += u32::from(row.retries);
        self.claimed_by = act.agent.filter(|_| row.claims).map(str::to_owned);
        self.updated_at = Timestamp::now();
        self.history.push(Hop {
            from: from.clone(),
            to: row.to.clone(),
            action: row.action.clone(),
            actor: act.role.into(),
            at: act.at.unwrap_or(self.updated_at),
            feedback,
        });
        let duty = machine.state(&self.state).and_then(|state| state.duty.as_ref());
        let changed = StateChanged {
            event_type: "workflow.state.changed".into(),
            task_id: self.task_id.clone(),
            story_id: self.story_id.clone(),
            from_state: from,
            to_state: row.to.clone(),
            action: row.action.clone(),
            actor_role: act.role.into(),
            role_in_charge: duty.map(|duty| duty.role.clone()).unwrap_or_default(),
            required_action: duty.map(|duty| duty.action.clone()).unwrap_or_default(),
            feedback: self.feedback.clone().unwrap_or_default(),
            retry_count: self.retry_count,
            timestamp: self.updated_at,
        };
        // Two moves of one task may have the same names; the length of its history tells them apart.
        WRITER.emit(cause, &changed, &format!("state_changed:{}", self.history.len()))?;
        metrics::count("workflow_transitions", &[])?;
        Ok(row.assigns)
    }

    /// What others have to know of where it rests. `assigns`: the last move was an assignment.
    fn tell(&mut self, machine: &Machine, cause: &Cause, assigns: bool) -> Result<(), Failure> {
        let Some(state) = machine.state(&self.state) else { return Ok(()) };
        let (task_id, story_id) = (self.task_id.clone(), self.story_id.clone());
        let count = self.history.len();
        if let Some(duty) = state.duty.as_ref().filter(|_| assigns || state.assigns) {
            let assigned = TaskAssigned {
                feedback: self.feedback.clone().filter(|_| state.rework),
                ..TaskAssigned::new(&task_id, &story_id, &duty.role, &duty.label, &duty.action, &state.name)
            };
            WRITER.emit(cause, &assigned, &format!("assigned:{count}"))?;
            if let Some(artifact) = &state.validates {
                let required = ValidationRequired {
                    task_id: task_id.clone(),
                    story_id: story_id.clone(),
                    validator_role: duty.role.clone(),
                    artifact_type: artifact.clone(),
                    timestamp: self.updated_at,
                };
                WRITER.emit(cause, &required, &format!("validation:{count}"))?;
            }
        }
        if state.ends.is_some() {
            let completed = TaskCompleted {
                task_id: task_id.clone(),
                story_id: story_id.clone(),
                final_state: state.name.clone(),
                timestamp: self.updated_at,
            };
            WRITER.emit(cause, &completed, "completed")?;
        }
        let first_owner = machine.first_owner();
        let with_others = state.duty.as_ref().is_some_and(|duty| Some(duty.role.as_str()) != first_owner);
        let leaves = !self.left && with_others;
        self.left |= leaves;
        if leaves || state.ends.is_some() {
            let moved = Moved { task_id, story_id, state: state.name.clone(), ended: state.ends };
            WRITER.emit(cause, &moved, &format!("moved:{count}"))?;
        }
        Ok(())
    }

    pub(crate) fn is_over(&self, machine: &Machine) -> bool {
        machine.state(&self.state).is_some_and(|state| state.ends.is_some())
    }
}

/// What somebody does to a task.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Act<'a> {
    pub(crate) action: &'a str,
    pub(crate) role: &'a str,
    pub(crate) agent: Option<&'a str>,
    pub(crate) feedback: Option<&'a str>,
    /// When they say that they did it.
    pub(crate) at: Option<Timestamp>,
}

impl<'a> Act<'a> {
    fn of_system(action: &'a str) -> Self {
        Self { action, role: SYSTEM, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    NotTheirs,
    NotHere,
}
