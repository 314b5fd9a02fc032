//! What the report of a full run has beside the rest: states, reviews that sent a task back, and what happened to each task.

use std::collections::BTreeMap;

use serde::Serialize;

use super::kills::Kills;
use super::timeline::Moment;
use super::trail::{Rejection, Trail};
use crate::demo::report::Task;

#[derive(Debug, Serialize)]
pub(in crate::demo) struct Full {
    story_state: String,
    /// How often a review sent a task back.
    rejections: usize,
    rejected: Vec<Rejection>,
    /// How often a task was sent back to its beginning.
    retries: u64,
    /// By task.
    timeline: BTreeMap<String, Vec<Moment>>,
    /// The story's steps, and what was done with its plan.
    story: Vec<Moment>,
    kills: Kills,
    seed: u64,
}

impl Full {
    pub(super) fn new(mut trail: Trail, tasks: &[Task], kills: Kills, seed: u64) -> Self {
        let timeline = tasks.iter().map(|task| (task.id.clone(), trail.moments(&task.id))).collect();
        let mut rejected = std::mem::take(&mut trail.rejected);
        rejected.sort_by_key(|rejection| rejection.at_ms);
        let mut story = std::mem::take(&mut trail.steps);
        story.sort_by_key(|step| step.at_us);
        Self {
            story_state: trail.story_state(),
            rejections: rejected.len(),
            rejected,
            retries: trail.retries,
            timeline,
            story,
            kills,
            seed,
        }
    }

    /// A timeline for each task, one for the story, and how it ended.
    pub(in crate::demo) fn text(&self, tasks: &[Task]) -> Vec<String> {
        let mut text = vec!["\nWhat happened, in seconds since the approval\n".to_owned()];
        for (index, task) in tasks.iter().enumerate() {
            let state = task.state.as_deref().unwrap_or("in no state");
            text.push(format!("{} {} [{}] {state}", index + 1, task.title, task.role));
            text.extend(self.timeline.get(&task.id).into_iter().flatten().map(line));
            text.push(String::new());
        }
        text.push(format!("The story [{}]", self.story_state));
        text.extend(self.story.iter().map(line));
        let count = |state: &str| tasks.iter().filter(|task| task.state.as_deref() == Some(state)).count();
        text.push(format!(
            "\nTasks done: {}, cancelled: {}; rejections: {}, retries: {}; the story is in {}",
            count("done"),
            count("cancelled"),
            self.rejections,
            self.retries,
            self.story_state
        ));
        let Kills { daemon, worker } = self.kills;
        if daemon > 0 {
            let worker =
                if worker > 0 { format!(", of the worker of its jobs: {worker}") } else { String::new() };
            text.push(format!(
                "Kills of the daemon: {daemon}{worker}; in this order again: --seed {}",
                self.seed
            ));
        }
        text
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of a run")]
fn line(moment: &Moment) -> String {
    format!("  {:>9.3}  {:<20} {}", moment.at_ms as f64 / 1000.0, moment.who, moment.what)
}
