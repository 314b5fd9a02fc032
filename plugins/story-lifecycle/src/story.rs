//! A story's aggregate, the cell `story/<story_id>`: where the story is, since when and by whose word, and how it makes a step.
//! What leads to one is `events`' and `service`'s business.

use std::collections::BTreeMap;

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, Incoming, Seen, StoryCreated, StoryStep, StoryTransitioned, Timestamp},
    info, metrics,
    rpc::{self, Status},
    state, warn,
};
use fleet_proto::{
    planning::v2::Story as Shown,
    task_derivation::v1::{ListStoryTasksRequest, ListStoryTasksResponse},
};
use serde::{Deserialize, Serialize};

use crate::{NAME, WRITER, machine::Machine};

const KEY: &str = "story";
const SCHEMA: u32 = 1;
/// Steps of our own that are known again when they come back; more are not under way at once.
const TOLD: usize = 16;
/// Messages of different services within this time don't tell which of them knew of the other.
pub(crate) const AT_ONCE_MS: u64 = 5_000;
const LIST_TASKS: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/ListStoryTasks";

/// All that is known of a story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Story {
    schema: u32,
    pub(crate) story_id: String,
    /// `None` as long as nobody has said where the story is, though something is known of it.
    state: Option<String>,
    /// When the bus stored what brought it there, or the host took the call.
    entered_at: Option<Timestamp>,
    /// The same of the last step that another service made.
    pub(crate) followed_at: Option<Timestamp>,
    /// How many steps we made.
    steps: u64,
    told: Vec<Told>,
    /// Triggers that came before the state that heeds them, and when: a message about the story may still be on its way.
    waiting: BTreeMap<String, Timestamp>,
    /// In the order in which Planning names them.
    tasks: Vec<String>,
    /// How many tasks each derived plan has.
    pub(crate) expected: BTreeMap<String, u32>,
    about: About,
    updated_at: Timestamp,
    pub(crate) seen: Seen,
}

/// What others say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct About {
    epic_id: Option<String>,
    title: Option<String>,
    brief: Option<String>,
    dor_score: Option<i64>,
    created_by: Option<String>,
    created_at: Option<Timestamp>,
}

/// A step that we made and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    to: String,
    at: Timestamp,
}

impl Story {
    /// The story of the event's or the call's cell; one of which nothing is known yet if there is none.
    pub(crate) fn load(story_id: &str) -> Result<Self, Failure> {
        let story: Option<Self> = state::load(KEY)?;
        match story {
            // An older version hands back what it can't read.
            Some(Self { schema, .. }) if schema > SCHEMA => Err(Failure::retry(format!(
                "the story has schema {schema}, this version knows up to {SCHEMA}"
            ))),
            Some(story) => Ok(story),
            None => Ok(Self { story_id: story_id.into(), ..Self::default() }),
        }
    }

    pub(crate) fn save(mut self) -> Result<(), Failure> {
        self.schema = SCHEMA;
        Ok(state::save(KEY, &self)?)
    }

    pub(crate) fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Where a story begins. Any step that was told counts more, whenever it was.
    pub(crate) fn open(&mut self, state: &str, at: Timestamp) {
        self.state = Some(state.into());
        self.updated_at = Timestamp::now();
        self.waiting.retain(|_, waiting| *waiting > at);
    }

    /// Brings the story to where it is by somebody else's word, or by an assumption: nothing is told.
    pub(crate) fn place(&mut self, state: &str, at: Timestamp) {
        self.state = Some(state.into());
        self.entered_at = self.entered_at.max(Some(at));
        self.updated_at = Timestamp::now();
    }

    /// Makes one step of our own, and tells it. `at`: when what asks for it came.
    pub(crate) fn step(
        &mut self,
        machine: &Machine,
        cause: &Cause,
        to: &str,
        by: &str,
        at: Timestamp,
    ) -> Result<(), Failure> {
        let from = self.state.clone().unwrap_or_default();
        self.place(to, at);
        self.steps += 1;
        let step = StoryStep {
            story_id: self.story_id.clone(),
            from_phase: machine.phase(&from).into(),
            to_phase: machine.phase(to).into(),
            from_state: from,
            to_state: to.into(),
            tasks: self.tasks_for(machine, to),
            transitioned_by: by.into(),
            timestamp: self.updated_at,
        };
        // A story may come to a state twice; the number tells the two apart.
        WRITER.emit(cause, &step, &format!("transitioned:{}", self.steps))?;
        metrics::count("story_transitions", &[])?;
        info!("{} -> {to}", step.from_state; story_id = self.story_id, by = by);
        if self.told.len() == TOLD {
            self.told.remove(0);
        }
        self.told.push(Told { to: to.into(), at: self.updated_at });
        Ok(())
    }

    /// Makes the steps that a trigger leads to. False if it leads nowhere from here.
    pub(crate) fn heed(
        &mut self,
        machine: &Machine,
        cause: &Cause,
        trigger: &str,
        at: Timestamp,
    ) -> Result<bool, Failure> {
        let Some(state) = self.state() else { return Ok(false) };
        let way = machine.walk(state, trigger);
        for to in &way {
            self.step(machine, cause, to, NAME, at)?;
        }
        Ok(!way.is_empty())
    }

    /// A trigger that leads nowhere now is kept: what brings the story to where it does may have been told before it, and still be
    /// on its way.
    pub(crate) fn keep_waiting(&mut self, trigger: &str, at: Timestamp) {
        let last = self.waiting.entry(trigger.into()).or_insert(at);
        *last = at.max(*last);
    }

    /// Heeds what came after the message that brought the story here, and forgets what came before it.
    pub(crate) fn heed_waiting(&mut self, machine: &Machine, cause: &Cause) -> Result<(), Failure> {
        loop {
            let entered = self.entered_at;
            self.waiting.retain(|_, at| Some(*at) > entered);
            let state = self.state.clone().unwrap_or_default();
            let heeded = self.waiting.iter().filter(|(trigger, _)| !machine.walk(&state, trigger).is_empty());
            let Some((trigger, at)) = heeded.min_by_key(|(_, at)| **at).map(|(t, at)| (t.clone(), *at))
            else {
                return Ok(());
            };
            self.waiting.remove(&trigger);
            self.heed(machine, cause, &trigger, at)?;
        }
    }

    /// Whether it is a step of our own that comes back.
    pub(crate) fn is_own(&self, message: &Incoming, moved: &StoryTransitioned) -> bool {
        let ours = message.envelope().and_then(|envelope| envelope.producer.as_deref()) == Some(NAME);
        // Without an envelope the time is what is left to know it by.
        self.told.iter().any(|told| told.at == moved.timestamp && told.to == moved.to_state)
            || (ours && self.told.last().is_some_and(|last| moved.timestamp <= last.at))
    }

    /// Whether a message tells of what was before the story came to where it is. Clocks differ a little, so one that goes on from
    /// here is not older.
    pub(crate) fn is_past(&self, message: &Incoming, from: Option<&str>) -> bool {
        let Some(entered) = self.entered_at.filter(|entered| message.arrival() < *entered) else {
            return false;
        };
        from != self.state() || entered.millis_since(message.arrival()) > AT_ONCE_MS
    }

    /// What Planning says of it. What is known already stays.
    pub(crate) fn describe(&mut self, created: StoryCreated) {
        let about = &mut self.about;
        about.epic_id = about.epic_id.take().or(created.epic_id);
        about.title = about.title.take().or(created.title);
        about.brief = about.brief.take().or(created.brief);
        about.dor_score = about.dor_score.or(created.dor_score);
        about.created_by = about.created_by.take().or(created.created_by);
        about.created_at = about.created_at.or(Some(created.created_at));
    }

    /// False if it was known.
    pub(crate) fn learn_task(&mut self, task_id: &str) -> bool {
        let new = !self.tasks.iter().any(|known| known == task_id);
        if new {
            self.tasks.push(task_id.into());
        }
        new
    }

    /// These first; others that are known come after them.
    pub(crate) fn order_tasks(&mut self, first: Vec<String>) {
        let known = std::mem::take(&mut self.tasks);
        for task in first.iter().chain(&known) {
            self.learn_task(task);
        }
    }

    /// For whoever hears of the story, if they are known.
    fn tasks_for(&mut self, machine: &Machine, to: &str) -> Option<Vec<String>> {
        let expected: usize = self.expected.values().map(|count| *count as usize).sum();
        let missing = self.tasks.is_empty() || self.tasks.len() < expected;
        let mut none_stored = false;
        if machine.needs_tasks(to) && missing {
            match stored_tasks(&self.story_id) {
                Ok(stored) => {
                    none_stored = stored.is_empty();
                    self.order_tasks(stored);
                }
                // Whoever needs them can ask, too.
                Err(status) => {
                    warn!("ListStoryTasks: {status}; telling what is known"; story_id = self.story_id, tasks = self.tasks.len());
                }
            }
        }
        (none_stored || !self.tasks.is_empty()).then(|| self.tasks.clone())
    }

    /// As it is shown to callers; nothing while nobody has said where it is.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = &self.about;
        Some(Shown {
            story_id: self.story_id.clone(),
            epic_id: text(&about.epic_id),
            title: text(&about.title),
            brief: text(&about.brief),
            state: self.state.clone()?,
            dor_score: about.dor_score.and_then(|score| i32::try_from(score).ok()).unwrap_or_default(),
            created_by: text(&about.created_by),
            created_at: about.created_at.map(|at| at.to_string()).unwrap_or_default(),
            updated_at: self.updated_at.to_string(),
        })
    }
}

/// The tasks that Planning has stored.
fn stored_tasks(story_id: &str) -> Result<Vec<String>, Status> {
    let request = ListStoryTasksRequest { story_id: story_id.into() };
    let answer: ListStoryTasksResponse = rpc::unary("planning", LIST_TASKS, &request)?;
    let ids = answer.tasks.into_iter().map(|task| task.task_id);
    Ok(ids.filter(|task_id| !task_id.trim().is_empty()).collect())
}
