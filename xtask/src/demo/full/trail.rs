//! What the stored messages tell of a plan: each task's state and moments, the story's steps, and whether the flow is
//! through, from the approval to what Context was told.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::timeline::{self, Moment};
use crate::demo::follow::{State, failure};
use crate::demo::message::Message;

/// Where a story ends here: what is beyond is up to people.
const GOAL: &str = "TESTING";
const READY_FOR_PLANNING: &str = "READY_FOR_PLANNING";
/// A task's hops from `todo` to `done` if nobody rejects anything.
const HOPS: usize = 11;
/// Of the plan's way, what lies before its tasks are there; and how many messages that takes at least.
const BEFORE_TASKS: (f64, usize) = (0.15, 8);

/// A review that sent a task back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::demo) struct Rejection {
    pub(in crate::demo) task_id: String,
    /// The role.
    pub(in crate::demo) by: String,
    pub(in crate::demo) feedback: String,
    pub(in crate::demo) at_ms: u64,
}

#[derive(Debug, Default)]
struct Task {
    /// In the order in which they were heard of; 0 for an id that so far is only named beside others.
    number: usize,
    state: String,
    hops: usize,
    is_over: bool,
    /// As the queue told last: it may tell the same again.
    queue: String,
    /// When its developer said so, and what.
    commits: Vec<(u64, String)>,
    moments: Vec<Moment>,
}

impl Task {
    /// The messages of workflow and developer come by different streams, so what was committed is looked up at the end.
    fn with_commit(&self, moment: &Moment) -> Moment {
        let last =
            self.commits.iter().filter(|(at_us, _)| *at_us <= moment.at_us).max_by_key(|(at_us, _)| *at_us);
        match last {
            Some((_, commit)) if moment.what == timeline::COMMITTED => {
                Moment { what: format!("{} {commit}", moment.what), ..moment.clone() }
            }
            _ => moment.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Trail {
    plan_id: String,
    story_id: String,
    begun_us: u64,
    seen: usize,
    last_ms: u64,
    /// What `task.derivation.completed` promises, and who derived it when.
    expected: Option<usize>,
    derived: Option<(Moment, usize)>,
    tasks: BTreeMap<String, Task>,
    story: String,
    pub(super) steps: Vec<Moment>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) retries: u64,
    /// Of tasks and of the plan: what was decided, and what Context was told of it.
    decided: BTreeSet<String>,
    told: BTreeSet<String>,
    dispatched: BTreeSet<String>,
    completed: BTreeSet<String>,
    plan_deliberated: bool,
    failed: Option<String>,
}

impl Trail {
    /// Time counts from now, in milliseconds since 1970, until the approval.
    pub(super) fn new(plan_id: &str, story_id: &str, now_ms: u64) -> Self {
        Self {
            plan_id: plan_id.to_owned(),
            story_id: story_id.to_owned(),
            begun_us: now_ms.saturating_mul(1000),
            seen: 0,
            last_ms: 0,
            expected: None,
            derived: None,
            tasks: BTreeMap::new(),
            story: String::new(),
            steps: Vec::new(),
            rejected: Vec::new(),
            retries: 0,
            decided: BTreeSet::new(),
            told: BTreeSet::new(),
            dispatched: BTreeSet::new(),
            completed: BTreeSet::new(),
            plan_deliberated: false,
            failed: None,
        }
    }

    /// Time counts from now on, and what was before was at its beginning.
    pub(super) fn approved(&mut self, now_ms: u64) {
        let before = std::mem::replace(&mut self.begun_us, now_ms.saturating_mul(1000));
        let passed = self.begun_us.saturating_sub(before);
        for step in &mut self.steps {
            step.at_us = step.at_us.saturating_sub(passed);
            step.at_ms = step.at_us / 1000;
        }
        self.last_ms = 0;
        self.seen = 0;
    }

    /// Takes a message in; returns how to tell it to a person, if it is worth it. Messages of one stream come in its order, those
    /// of several in any.
    pub(super) fn take(&mut self, message: &Message) -> Option<String> {
        self.seen += 1;
        let at_us = message.epoch_us().unwrap_or_default().saturating_sub(self.begun_us);
        let at_ms = at_us / 1000;
        if let Some(reason) = failure(message, &self.plan_id) {
            self.failed = Some(reason);
        }
        let moment = |who: String, what: String| Moment { at_ms, who, what, at_us };
        let task_id = message.text("task_id").unwrap_or_default();
        match message.subject.as_str() {
            "task.derivation.completed" if message.text("plan_id").as_deref() == Some(&*self.plan_id) => {
                let count = message.count("task_count");
                self.expected = Some(count);
                self.derived = Some((moment(message.publisher(), String::new()), count));
                let step = moment(message.publisher(), format!("the plan: derived {count} tasks"));
                return Some(self.of_story(step));
            }
            "planning.story.transitioned" if message.text("story_id").as_deref() == Some(&*self.story_id) => {
                return self.step(message, moment);
            }
            "orchestration.plan.approved" => {
                self.plan_deliberated = true;
                let step = moment(message.publisher(), "the councils are through with the plan".to_owned());
                return Some(self.of_story(step));
            }
            "orchestration.deliberation.completed" if !message.list("decisions").is_empty() => {
                self.decided.insert(task_id.clone());
            }
            "context.updated" => drop(self.told.insert(task_id.clone())),
            "orchestration.task.dispatched" => drop(self.dispatched.insert(task_id.clone())),
            "orchestration.task.completed" => drop(self.completed.insert(task_id.clone())),
            "orchestration.task.failed" => {
                let error = message.text("error").unwrap_or_default();
                self.failed = Some(format!("{}: {task_id}: {error}", message.subject));
            }
            _ => {}
        }
        if task_id == self.plan_id {
            let (who, what) = timeline::tell(message)?;
            return Some(self.of_story(moment(who, format!("the plan: {what}"))));
        }
        if task_id.is_empty() || task_id.starts_with("derive-") {
            return None;
        }
        self.of_task(&task_id, message, moment)
    }

    fn known(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.number > 0)
    }

    fn step(&mut self, message: &Message, moment: impl Fn(String, String) -> Moment) -> Option<String> {
        let either = |one, other| message.text(one).or_else(|| message.text(other)).unwrap_or_default();
        self.story = either("to_state", "to_phase");
        let what = format!("{} -> {}", either("from_state", "from_phase"), self.story);
        let who = message.text("transitioned_by").unwrap_or_else(|| message.publisher());
        Some(self.of_story(moment(who, what)))
    }

    fn of_story(&mut self, step: Moment) -> String {
        self.last_ms = self.last_ms.max(step.at_ms);
        let said = line(step.at_ms, "story", &step.who, &step.what);
        self.steps.push(step);
        said
    }

    fn of_task(
        &mut self,
        task_id: &str,
        message: &Message,
        moment: impl Fn(String, String) -> Moment,
    ) -> Option<String> {
        let number = self.known().count() + 1;
        let task = self.tasks.entry(task_id.to_owned()).or_default();
        if task.number == 0 && matches!(&*message.subject, "planning.task.created" | "workflow.state.changed")
        {
            task.number = number;
        }
        let text = |key| message.text(key).unwrap_or_default();
        let mut told = timeline::tell(message);
        match message.subject.as_str() {
            "agent.work.completed" => {
                let result = message.field("result").and_then(|result| result.get("artifacts"));
                let artifacts = [message.field("artifacts"), result];
                let commit =
                    artifacts.into_iter().flatten().find_map(|found| found.get("commit_sha")?.as_str());
                let at_us = moment(String::new(), String::new()).at_us;
                task.commits.extend(commit.map(|commit| (at_us, commit.chars().take(12).collect())));
            }
            "workflow.state.changed" => {
                task.state = text("to_state");
                task.hops += 1;
                let action = text("action");
                if action.starts_with("reject_") {
                    let (by, feedback) = (text("actor_role"), text("feedback"));
                    let at_ms = moment(String::new(), String::new()).at_ms;
                    self.rejected.push(Rejection { task_id: task_id.to_owned(), by, feedback, at_ms });
                }
                self.retries += u64::from(action == "retry");
            }
            "workflow.task.completed" => task.is_over = true,
            "cofferdam.queue.changed" => {
                let status = text("status");
                told = told.filter(|_| task.queue != status);
                task.queue = status;
            }
            _ => {}
        }
        let (who, what) = told?;
        let moment = moment(who, what);
        self.last_ms = self.last_ms.max(moment.at_ms);
        let of = if task.number > 0 { format!("#{}", task.number) } else { String::new() };
        let said = line(moment.at_ms, &of, &moment.who, &moment.what);
        task.moments.push(moment);
        Some(said)
    }

    /// How far the plan is on its way, from 0 to 1; a little behind rather than before what is true.
    #[allow(clippy::cast_precision_loss, reason = "a few hundred at most")]
    pub(super) fn progress(&self) -> f64 {
        let (before, messages) = BEFORE_TASKS;
        let Some(expected) = self.expected else {
            return before * (self.seen.min(messages) as f64 / messages as f64);
        };
        let hops = |task: &Task| if task.is_over { HOPS } else { task.hops.min(HOPS - 1) };
        let hops: usize = self.known().map(hops).sum();
        before + (1.0 - before) * (hops as f64 / (expected.max(1) * HOPS) as f64)
    }

    pub(super) fn state(&self) -> State {
        if let Some(reason) = &self.failed {
            return State::Failed(reason.clone());
        }
        match self.waiting() {
            Some(what) => State::Waiting(what),
            None => State::Done,
        }
    }

    fn waiting(&self) -> Option<String> {
        let Some(expected) = self.expected else { return Some("task.derivation.completed".to_owned()) };
        let open = self.known().filter(|task| !task.is_over);
        let open: Vec<String> =
            open.map(|task| format!("#{} {}", task.number, or(&task.state, "unborn"))).collect();
        let missing = expected.saturating_sub(self.known().count());
        if missing > 0 {
            return Some(format!("{missing} of {expected} tasks, nothing of which was told yet"));
        }
        if !open.is_empty() {
            let queue = self.dispatched.len() - self.dispatched.intersection(&self.completed).count();
            return Some(format!(
                "the end of {} of {expected} tasks ({}; {} dispatched, {queue} of them unanswered)",
                open.len(),
                open.join(", "),
                self.dispatched.len()
            ));
        }
        if self.story != GOAL {
            return Some(format!("the story to be in {GOAL}; it is in {}", or(&self.story, "no state yet")));
        }
        let behind = |of: &BTreeSet<String>, in_: &BTreeSet<String>, what: &str| {
            let missing: Vec<&str> = of.difference(in_).map(String::as_str).collect();
            (!missing.is_empty()).then(|| format!("{what} of {}", missing.join(", ")))
        };
        behind(&self.dispatched, &self.completed, "orchestration.task.completed")
            .or_else(|| behind(&self.decided, &self.told, "context.updated"))
            .or_else(|| (!self.plan_deliberated).then(|| "orchestration.plan.approved".to_owned()))
    }

    /// A plan is approved once its story is ready for it: what is derived before that moves no story.
    pub(super) fn is_ready_for_planning(&self) -> bool {
        self.story == READY_FOR_PLANNING
    }

    pub(super) fn story_state(&self) -> String {
        self.story.clone()
    }

    /// From the approval to the last that is told.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.last_ms
    }

    pub(super) fn task_state(&self, task_id: &str) -> Option<String> {
        self.tasks.get(task_id).map(|task| task.state.clone()).filter(|state| !state.is_empty())
    }

    /// A task's moments in the order of their time, from its derivation on.
    pub(super) fn moments(&self, task_id: &str) -> Vec<Moment> {
        let derived = self.derived.iter().map(|(moment, count)| {
            let what = format!("derived, with {} others", count.saturating_sub(1));
            Moment { what, ..moment.clone() }
        });
        let task = self.tasks.get(task_id);
        let own =
            task.into_iter().flat_map(|task| task.moments.iter().map(|moment| task.with_commit(moment)));
        let mut all: Vec<Moment> = derived.chain(own).collect();
        all.sort_by_key(|moment| moment.at_us);
        all
    }
}

fn line(at_ms: u64, of: &str, who: &str, what: &str) -> String {
    format!("{at_ms:>7} ms  {of:<6}{who:<20} {what}")
}

fn or<'a>(text: &'a str, else_: &'a str) -> &'a str {
    if text.is_empty() { else_ } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that is stored so many milliseconds after the approval.
    fn message(at_ms: u64, subject: &str, data: &str) -> Message {
        let line = format!(
            r#"{{"time":"1970-01-01T00:00:{:02}.{:03}Z","subject":"{subject}","headers":{{"Cofferdam-Plugin":"p"}},"data":{data}}}"#,
            at_ms / 1000,
            at_ms % 1000
        );
        Message::read(&line).unwrap()
    }

    fn changed(task: &str, action: &str, by: &str, to: &str) -> String {
        format!(
            r#"{{"task_id":"{task}","action":"{action}","actor_role":"{by}","to_state":"{to}","feedback":"not like this"}}"#
        )
    }

    const CHANGED: &str = "workflow.state.changed";

    #[track_caller]
    fn waits_for(trail: &Trail, what: &str) {
        match trail.state() {
            State::Waiting(found) => assert!(found.contains(what), "{found}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_is_through_when_tasks_story_queue_and_context_say_so() {
        let mut trail = Trail::new("plan", "story", 0);
        waits_for(&trail, "task.derivation.completed");
        assert!(trail.progress() < 0.01);
        trail.take(&message(10, "task.derivation.completed", r#"{"plan_id":"plan","task_count":2}"#));
        waits_for(&trail, "2 of 2 tasks");
        for task in ["a", "b"] {
            trail.take(&message(20, "planning.task.created", &format!(r#"{{"task_id":"{task}"}}"#)));
            trail.take(&message(21, "orchestration.task.dispatched", &format!(r#"{{"task_id":"{task}"}}"#)));
        }
        waits_for(&trail, "#2 unborn; 2 dispatched, 2 of them unanswered");
        let between = trail.progress();
        trail.take(&message(30, CHANGED, &changed("a", "reject_tests", "qa", "qa_failed")));
        trail.take(&message(31, CHANGED, &changed("a", "retry", "system", "todo")));
        trail.take(&message(40, CHANGED, &changed("a", "auto_complete", "system", "done")));
        trail.take(&message(40, CHANGED, &changed("b", "reject_story", "po", "cancelled")));
        for (task, state) in [("a", "done"), ("b", "cancelled")] {
            let data = format!(r#"{{"task_id":"{task}","final_state":"{state}"}}"#);
            trail.take(&message(41, "workflow.task.completed", &data));
        }
        assert!(between < trail.progress() && (trail.progress() - 1.0).abs() < 1e-9);
        waits_for(&trail, "TESTING; it is in no state yet");
        let step = r#"{"story_id":"story","from_state":"CODE_REVIEW","to_state":"TESTING"}"#;
        trail.take(&message(50, "planning.story.transitioned", step));
        waits_for(&trail, "orchestration.task.completed of a, b");
        for task in ["a", "b"] {
            trail.take(&message(51, "orchestration.task.completed", &format!(r#"{{"task_id":"{task}"}}"#)));
        }
        let decided = r#"{"task_id":"plan","status":"completed","decisions":[{"id":"DEC-plan"}]}"#;
        trail.take(&message(52, "orchestration.deliberation.completed", decided));
        waits_for(&trail, "context.updated of plan");
        trail.take(&message(53, "context.updated", r#"{"task_id":"plan"}"#));
        waits_for(&trail, "orchestration.plan.approved");
        trail.take(&message(54, "orchestration.plan.approved", r#"{"task_id":"plan"}"#));
        assert_eq!(trail.state(), State::Done);

        assert_eq!(
            (trail.task_state("a").as_deref(), trail.task_state("b").as_deref()),
            (Some("done"), Some("cancelled"))
        );
        assert_eq!((trail.story_state().as_str(), trail.retries, trail.elapsed_ms()), ("TESTING", 1, 54));
        let of_plan: Vec<&str> = trail.steps.iter().map(|step| step.what.as_str()).skip(2).collect();
        let expect = [
            "the plan: deliberated by 0 agents: completed",
            "the plan: Context knows what was decided",
            "the councils are through with the plan",
        ];
        assert_eq!(of_plan, expect);
        let rejected: Vec<(&str, &str, u64)> =
            trail.rejected.iter().map(|r| (&*r.task_id, &*r.by, r.at_ms)).collect();
        assert_eq!(rejected, [("a", "qa", 30), ("b", "po", 40)]);
        assert_eq!(trail.rejected[0].feedback, "not like this");
    }

    #[test]
    fn moments_are_told_in_the_order_of_their_time_however_they_came() {
        let mut trail = Trail::new("plan", "story", 0);
        let work = r#"{"task_id":"a","artifacts":{"commit_sha":"0123456789abcdef"}}"#;
        let said =
            trail.take(&message(4, CHANGED, &changed("a", "commit_code", "developer", "dev_completed")));
        assert_eq!(said.unwrap(), "      4 ms  #1    developer            committed");
        trail.take(&message(3, "agent.work.completed", work));
        trail.take(&message(
            2,
            "planning.task.created",
            r#"{"task_id":"a","assigned_to":"QA","priority":1}"#,
        ));
        trail.take(&message(1, "task.derivation.completed", r#"{"plan_id":"plan","task_count":3}"#));
        // Jobs of a derivation are no tasks.
        assert_eq!(trail.take(&message(1, "agent.response.completed", r#"{"task_id":"derive-plan"}"#)), None);
        let moments: Vec<String> =
            trail.moments("a").into_iter().map(|m| format!("{} {}", m.at_ms, m.what)).collect();
        assert_eq!(
            moments,
            ["1 derived, with 2 others", "2 created, for QA, priority 1", "4 committed 0123456789ab"]
        );
    }

    #[test]
    fn a_repeated_word_of_the_queue_is_told_once() {
        let mut trail = Trail::new("plan", "story", 0);
        let mut tell = |status: &str| {
            let data = format!(r#"{{"task_id":"a","status":"{status}"}}"#);
            trail.take(&message(1, "cofferdam.queue.changed", &data)).is_some()
        };
        let told = ["QUEUED", "QUEUED", "IN_PROGRESS", "QUEUED", "COMPLETED"].map(&mut tell);
        assert_eq!(told, [true, false, false, true, false]);
    }

    #[test]
    fn time_counts_from_the_approval() {
        let mut trail = Trail::new("plan", "story", 0);
        let to = |state: &str| format!(r#"{{"story_id":"story","from_state":"A","to_state":"{state}"}}"#);
        trail.take(&message(10, "planning.story.transitioned", &to("READY_FOR_PLANNING")));
        assert!(trail.is_ready_for_planning());
        trail.approved(30);
        trail.take(&message(37, "planning.story.transitioned", &to("PLANNED")));
        assert_eq!(trail.steps.iter().map(|step| step.at_ms).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(trail.elapsed_ms(), 7);
    }

    #[test]
    fn what_a_plan_does_not_recover_from_ends_it() {
        for (subject, data, expect) in [
            ("task.derivation.failed", r#"{"plan_id":"plan","reason":"no_tasks"}"#, "no_tasks"),
            ("cofferdam.dead.council", r#"{"reason":"unfit"}"#, "cofferdam.dead.council: unfit"),
            (
                "orchestration.task.failed",
                r#"{"task_id":"a","error":"no council"}"#,
                "orchestration.task.failed: a: no council",
            ),
        ] {
            let mut trail = Trail::new("plan", "story", 0);
            trail.take(&message(1, subject, data));
            assert_eq!(trail.state(), State::Failed(expect.to_owned()));
        }
    }
}
