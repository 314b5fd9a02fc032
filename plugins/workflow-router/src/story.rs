//! A story's aggregate, the cell `story/<story_id>`: which tasks it has and how many it will have, and what happens when
//! it becomes ready for execution.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::{
    Failure,
    fleet::{Cause, DerivationCompleted, Incoming, Seen, StoryTasksCompleted, StoryTransitioned, Timestamp},
    info,
    rpc::{self, Code, Status},
    state, warn,
};
use fleet_proto::task_derivation::v1::{ListStoryTasksRequest, ListStoryTasksResponse};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, dropped,
    figures::{Figures, Totals},
    machine::End,
    malformed,
    own::{Moved, Open, Opened},
    settings::{AssignPolicy, assign_policy},
};

const KEY: &str = "story";
const SCHEMA: u32 = 1;
const READY: &str = "READY_FOR_EXECUTION";
const LIST_TASKS: &str = "fleet.task_derivation.v1.TaskDerivationPlanningService/ListStoryTasks";

/// All that is known of a story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Story {
    schema: u32,
    /// Tasks that are open, in the order in which they opened.
    tasks: Vec<String>,
    /// Tasks of the newest transition into execution, in its order.
    planned: Vec<String>,
    /// That transition named its tasks, so there are no others to wait for.
    listed: bool,
    /// Those of them that were brought to their first owner.
    given: Vec<String>,
    /// Those that have left their first owner, or are over.
    left: BTreeSet<String>,
    /// How those ended that are over.
    ended: BTreeMap<String, End>,
    /// For their figures.
    finals: BTreeMap<String, Final>,
    /// The tasks with which it was told to be through.
    announced: Option<Vec<String>>,
    /// How many tasks each derived plan has.
    expected: BTreeMap<String, u32>,
    seen: Seen,
}

/// A task that is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Final {
    state: String,
    figures: Figures,
}

impl Story {
    fn load() -> Result<Self, Failure> {
        Self::known(state::load(KEY)?)
    }

    /// A story by its name; one that nobody knows has no tasks.
    pub(crate) fn named(story_id: &str) -> Result<Self, Failure> {
        Self::known(state::cell(format!("story/{story_id}")).load(KEY)?)
    }

    fn known(story: Option<Self>) -> Result<Self, Failure> {
        let story = story.unwrap_or_default();
        if story.schema > SCHEMA {
            // An older version hands back what it can't read.
            let schema = story.schema;
            return Err(Failure::retry(format!(
                "the story has schema {schema}, this version knows up to {SCHEMA}"
            )));
        }
        Ok(story)
    }

    fn save(mut self) -> Result<(), Failure> {
        self.schema = SCHEMA;
        Ok(state::save(KEY, &self)?)
    }

    /// Its tasks that are over.
    pub(crate) fn over(&self) -> Totals {
        let mut totals = Totals::default();
        self.finals.values().for_each(|last| totals.add(&last.state, last.figures));
        totals
    }

    pub(crate) fn is_over(&self, task_id: &str) -> bool {
        self.finals.contains_key(task_id)
    }

    /// The others of those that are open, as far as it has heard.
    pub(crate) fn open(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(String::as_str).filter(|task_id| !self.is_over(task_id))
    }

    /// Brings the next of its tasks to a first owner.
    fn give_next(&mut self, cause: &Cause, story_id: &str) -> Result<(), Failure> {
        let waits = |task: &&String| !self.given.contains(task) && !self.left.contains(*task);
        let Some(task_id) = self.planned.iter().find(waits).cloned() else { return Ok(()) };
        let open = Open { task_id: task_id.clone(), story_id: story_id.into(), assign: true };
        WRITER.emit(cause, &open, "give")?;
        self.given.push(task_id);
        Ok(())
    }

    /// Once for each set of tasks.
    fn tell_completion(&mut self, cause: &Cause, story_id: &str) -> Result<(), Failure> {
        if !self.is_complete() {
            return Ok(());
        }
        let tasks: Vec<String> = self.ended.keys().cloned().collect();
        if self.announced.as_ref() == Some(&tasks) {
            return Ok(());
        }
        let cancelled = self.ended.values().filter(|end| **end == End::Cancelled).count();
        let completed = StoryTasksCompleted {
            story_id: story_id.into(),
            all_tasks_status: "done".into(),
            task_count: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            cancelled_count: u32::try_from(cancelled).unwrap_or(u32::MAX),
            timestamp: Timestamp::now(),
        };
        WRITER.emit(cause, &completed, &format!("tasks_completed:{}", tasks.len()))?;
        info!("all tasks are through"; story_id = story_id, tasks = tasks.len(), cancelled = cancelled);
        self.announced = Some(tasks);
        Ok(())
    }

    /// All that are known, and all that are expected, are over, and something was done.
    fn is_complete(&self) -> bool {
        let over = |task: &String| self.ended.contains_key(task);
        let derived = self.expected.values().map(|count| *count as usize).sum();
        let none_missing = self.planned.iter().all(over) && (self.listed || self.ended.len() >= derived);
        none_missing && self.tasks.iter().all(over) && self.ended.values().any(|end| *end == End::Done)
    }
}

/// `planning.story.transitioned`: once the story is ready for execution, its unknown tasks open.
pub(crate) fn transitioned(message: &Incoming, moved: &StoryTransitioned) -> Result<(), Failure> {
    message.keyed_by(&moved.story_id).map_err(malformed)?;
    if !moved.to_state.eq_ignore_ascii_case(READY) {
        return Ok(());
    }
    let mut story = Story::load()?;
    if !story.seen.first_time(message) {
        return dropped("duplicate");
    }
    let tasks = match &moved.tasks {
        Some(tasks) => tasks.clone(),
        None if !story.tasks.is_empty() => story.tasks.clone(),
        None => stored_tasks(&moved.story_id)?,
    };
    let policy = assign_policy()?;
    let cause = message.cause();
    story.planned.clear();
    story.given.clear();
    for task_id in tasks {
        if !story.planned.contains(&task_id) {
            story.planned.push(task_id);
        }
    }
    story.listed = moved.tasks.is_some() && !story.planned.is_empty();
    // One that has left its developer already makes no room for another any more.
    let first = story.planned.iter().find(|task_id| !story.left.contains(*task_id)).cloned();
    for task_id in story.planned.clone() {
        let unknown = !story.tasks.contains(&task_id);
        let assign = match policy {
            AssignPolicy::First => first.as_ref() == Some(&task_id),
            AssignPolicy::All => unknown,
        };
        if unknown || assign {
            let open = Open { task_id: task_id.clone(), story_id: moved.story_id.clone(), assign };
            WRITER.emit(&cause, &open, "open")?;
        }
        if assign {
            story.given.push(task_id);
        }
    }
    info!("ready for execution"; story_id = moved.story_id, tasks = story.planned.len(), open = story.tasks.len());
    story.tell_completion(&cause, &moved.story_id)?;
    story.save()
}

/// The tasks that Planning has stored for a story that came without any.
fn stored_tasks(story_id: &str) -> Result<Vec<String>, Failure> {
    let request = ListStoryTasksRequest { story_id: story_id.into() };
    let answer: Result<ListStoryTasksResponse, Status> = rpc::unary("planning", LIST_TASKS, &request);
    match answer {
        Ok(answer) => Ok(answer
            .tasks
            .into_iter()
            .map(|task| task.task_id)
            .filter(|task_id| !task_id.trim().is_empty())
            .collect()),
        Err(status) if status.code == Code::NotFound && !status.local => {
            warn!("Planning does not know the story, so there is nothing to open"; story_id = story_id);
            Ok(Vec::new())
        }
        Err(status) => Err(Failure::retry(format!("ListStoryTasks of {story_id:?}: {status}"))),
    }
}

/// `task.derivation.completed`: how many tasks the story is going to have.
pub(crate) fn derived(message: &Incoming, completed: &DerivationCompleted) -> Result<(), Failure> {
    message.keyed_by(&completed.story_id).map_err(malformed)?;
    let mut story = Story::load()?;
    if !story.seen.first_time(message) {
        return dropped("duplicate");
    }
    story.expected.insert(completed.plan_id.clone(), completed.task_count);
    story.tell_completion(&message.cause(), &completed.story_id)?;
    story.save()
}

/// `cofferdam.workflow.opened`: a task of the story exists now.
pub(crate) fn opened(message: &Incoming, opened: &Opened) -> Result<(), Failure> {
    message.keyed_by(&opened.story_id).map_err(malformed)?;
    let mut story = Story::load()?;
    if story.tasks.contains(&opened.task_id) {
        return dropped("duplicate");
    }
    story.tasks.push(opened.task_id.clone());
    story.save()
}

/// `cofferdam.workflow.moved`: a task of the story has left its first owner, or is over.
pub(crate) fn moved(message: &Incoming, moved: &Moved) -> Result<(), Failure> {
    message.keyed_by(&moved.story_id).map_err(malformed)?;
    let mut story = Story::load()?;
    let leaves = story.left.insert(moved.task_id.clone());
    let ends = moved.ended.filter(|_| !story.ended.contains_key(&moved.task_id));
    if !leaves && ends.is_none() {
        return dropped("duplicate");
    }
    let cause = message.cause();
    // The one that leaves makes room for one.
    if leaves && story.planned.contains(&moved.task_id) && assign_policy()? == AssignPolicy::First {
        story.give_next(&cause, &moved.story_id)?;
    }
    if let Some(end) = ends {
        story.ended.insert(moved.task_id.clone(), end);
        let last = Final { state: moved.state.clone(), figures: moved.figures };
        story.finals.insert(moved.task_id.clone(), last);
        story.tell_completion(&cause, &moved.story_id)?;
    }
    story.save()
}
