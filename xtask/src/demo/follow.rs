//! Follows a plan on the bus: from messages to events, and whether the plan is through.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::message::Message;

/// Something that happened, as the report tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Event {
    pub(super) subject: String,
    /// Who handled it; of a message, who published it.
    pub(super) plugin: String,
    /// As the daemon's advisory says; `published` for a message.
    pub(super) outcome: String,
    /// How long handling it took. A message takes no time.
    pub(super) ms: f64,
    /// When it was seen, from the approval on.
    pub(super) at_ms: u64,
}

/// How far the plan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Waiting(String),
    /// All tasks are assigned; the last advisories may be on their way.
    Assigned,
    Done,
    Failed(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(what) => write!(f, "waiting for {what}"),
            Self::Assigned => f.write_str("all tasks are assigned"),
            Self::Done => f.write_str("done"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// Everything seen so far.
#[derive(Debug)]
pub(super) struct Follow {
    plan_id: String,
    begun_ms: u64,
    events: Vec<Event>,
    /// What `task.derivation.completed` promises.
    expected: Option<usize>,
    created: usize,
    assigned: BTreeSet<String>,
    handled: usize,
    failed: Option<String>,
    last_ms: u64,
}

const CREATED: &str = "planning.task.created";
/// In a fleet as fresh as this one, each is the end of the plan.
const DEAD: &str = "cofferdam.dead.";
const ADVISORY: &str = "cofferdam-advisory.";

impl Follow {
    /// `begun_ms`: since 1970, when the plan was approved.
    pub(super) fn new(plan_id: &str, begun_ms: u64) -> Self {
        Self {
            plan_id: plan_id.to_owned(),
            begun_ms,
            events: Vec::new(),
            expected: None,
            created: 0,
            assigned: BTreeSet::new(),
            handled: 0,
            failed: None,
            last_ms: 0,
        }
    }

    /// Takes a line in; returns how to tell it to a person.
    pub(super) fn take(&mut self, line: &str) -> Option<String> {
        Message::read(line).map(|message| self.take_message(&message))
    }

    pub(super) fn take_message(&mut self, message: &Message) -> String {
        let at_ms = message.epoch_us().map_or(self.last_ms, |us| (us / 1000).saturating_sub(self.begun_ms));
        let event = if message.subject.starts_with(ADVISORY) {
            self.handled(message, at_ms)
        } else {
            self.published(message, at_ms)
        };
        let said = match event.outcome.as_str() {
            "published" => format!("{at_ms:>7} ms  {:<20} -> {}", event.plugin, event.subject),
            outcome => {
                let why = message.text("error").map_or_else(String::new, |why| format!(": {why}"));
                format!(
                    "{at_ms:>7} ms  {:<20}    {} {outcome} in {:.1} ms{why}",
                    event.plugin, event.subject, event.ms
                )
            }
        };
        self.events.push(event);
        said
    }

    fn handled(&mut self, message: &Message, at_ms: u64) -> Event {
        let text = |key| message.text(key).unwrap_or_default();
        let event = Event {
            subject: text("subject"),
            plugin: text("plugin"),
            outcome: text("outcome"),
            ms: message.field("ms").and_then(Value::as_f64).unwrap_or_default(),
            at_ms,
        };
        if event.subject == CREATED && matches!(event.outcome.as_str(), "done" | "duplicate") {
            self.handled += 1;
        }
        event
    }

    fn published(&mut self, message: &Message, at_ms: u64) -> Event {
        match message.subject.as_str() {
            "task.derivation.completed" if self.is_ours(message) => {
                self.expected = Some(message.count("task_count"));
            }
            CREATED => self.created += 1,
            "workflow.task.assigned" => {
                self.assigned.extend(message.text("task_id"));
                self.last_ms = at_ms;
            }
            _ => {}
        }
        if let Some(reason) = failure(message, &self.plan_id) {
            self.failed = Some(reason);
        }
        let (subject, plugin) = (message.subject.clone(), message.publisher());
        Event { subject, plugin, outcome: "published".to_owned(), ms: 0.0, at_ms }
    }

    fn is_ours(&self, message: &Message) -> bool {
        message.text("plan_id").is_some_and(|id| id == self.plan_id)
    }

    pub(super) fn state(&self) -> State {
        if let Some(reason) = &self.failed {
            return State::Failed(reason.clone());
        }
        match self.expected {
            None => State::Waiting("task.derivation.completed".to_owned()),
            Some(count) if self.assigned.len() < count => State::Waiting(format!(
                "workflow.task.assigned of {} of {count} tasks",
                count - self.assigned.len()
            )),
            Some(_) if self.handled < self.created => State::Assigned,
            Some(_) => State::Done,
        }
    }

    /// From the approval to the last assignment.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.last_ms
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }
}

/// What a plan does not recover from.
pub(super) fn failure(message: &Message, plan_id: &str) -> Option<String> {
    let reason = || message.text("reason").unwrap_or_else(|| "without a reason".to_owned());
    match message.subject.as_str() {
        "task.derivation.failed" if message.text("plan_id").as_deref() == Some(plan_id) => Some(reason()),
        subject if subject.starts_with(DEAD) => Some(format!("{subject}: {}", reason())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(subject: &str, headers: &str, data: &str) -> String {
        format!(
            r#"{{"time":"2026-01-02T03:04:05.678Z","subject":"{subject}","headers":{{{headers}}},"data":{data}}}"#
        )
    }

    #[test]
    fn a_plan_is_through_when_its_tasks_are_assigned_and_their_events_handled() {
        let mut follow = Follow::new("p1", 1_767_323_045_000);
        follow.take(&line("task.derivation.completed", "", r#"{"plan_id":"other","task_count":9}"#));
        assert_eq!(follow.state(), State::Waiting("task.derivation.completed".into()));
        let completed = r#"{"producer":"dependency-analyzer","payload":{"plan_id":"p1","task_count":2}}"#;
        follow.take(&line("task.derivation.completed", "", completed));
        for task in ["t1", "t2"] {
            follow.take(&line("planning.task.created", "", r#"{"plan_id":"p1"}"#));
            let header = r#""Cofferdam-Plugin":"workflow-router""#;
            let data = format!(r#"{{"task_id":"{task}"}}"#);
            follow.take(&line("workflow.task.assigned", header, &data));
            // An assignment that is told twice counts once.
            follow.take(&line("workflow.task.assigned", header, &data));
        }
        assert_eq!(follow.state(), State::Assigned);
        let advisory =
            r#"{"subject":"planning.task.created","plugin":"workflow-router","outcome":"done","ms":1.5}"#;
        for _ in 0..2 {
            let said = follow.take(&line("cofferdam-advisory.workflow-router.done", "", advisory)).unwrap();
            assert!(said.contains("planning.task.created done in 1.5 ms"), "{said}");
        }
        assert_eq!(follow.state(), State::Done);
        assert_eq!(follow.elapsed_ms(), 678);
        let events = follow.into_events();
        let find = |subject: &str| events.iter().rfind(|event| event.subject == subject).unwrap();
        assert_eq!(find("workflow.task.assigned").plugin, "workflow-router");
        assert_eq!(find("task.derivation.completed").plugin, "dependency-analyzer");
        assert_eq!(
            (find("planning.task.created").outcome.as_str(), find("planning.task.created").ms),
            ("done", 1.5)
        );
    }

    #[test]
    fn a_failed_derivation_or_a_dead_letter_ends_it_with_its_reason() {
        let mut follow = Follow::new("p1", 0);
        follow.take(&line("task.derivation.failed", "", r#"{"plan_id":"p1","reason":"no_tasks"}"#));
        assert_eq!(follow.state(), State::Failed("no_tasks".into()));
        let mut follow = Follow::new("p1", 0);
        follow.take(&line(
            "cofferdam.dead.prompt-builder",
            "",
            r#"{"plugin":"prompt-builder","reason":"unfit"}"#,
        ));
        assert_eq!(follow.state(), State::Failed("cofferdam.dead.prompt-builder: unfit".into()));
    }
}
