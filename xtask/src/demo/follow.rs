//! Follows a plan on the bus: from the lines of a plain subscription to events, and whether the plan is through.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// One line of `fleet watch --json`.
#[derive(Debug, Deserialize)]
struct Message {
    time: String,
    subject: String,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    data: Value,
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
        let message = serde_json::from_str::<Message>(line).ok()?;
        let at_ms = epoch_ms(&message.time).map_or(self.last_ms, |ms| ms.saturating_sub(self.begun_ms));
        let event = if message.subject.starts_with(ADVISORY) {
            self.handled(&message, at_ms)
        } else {
            self.published(&message, at_ms)
        };
        let said = match event.outcome.as_str() {
            "published" => format!("{at_ms:>7} ms  {:<20} -> {}", event.plugin, event.subject),
            outcome => {
                let why = text(&message.data, "error").map_or_else(String::new, |why| format!(": {why}"));
                format!(
                    "{at_ms:>7} ms  {:<20}    {} {outcome} in {:.1} ms{why}",
                    event.plugin, event.subject, event.ms
                )
            }
        };
        self.events.push(event);
        Some(said)
    }

    fn handled(&mut self, message: &Message, at_ms: u64) -> Event {
        let data = &message.data;
        let event = Event {
            subject: text(data, "subject").unwrap_or_default(),
            plugin: text(data, "plugin").unwrap_or_default(),
            outcome: text(data, "outcome").unwrap_or_default(),
            ms: data.get("ms").and_then(Value::as_f64).unwrap_or_default(),
            at_ms,
        };
        if event.subject == CREATED && matches!(event.outcome.as_str(), "done" | "duplicate") {
            self.handled += 1;
        }
        event
    }

    fn published(&mut self, message: &Message, at_ms: u64) -> Event {
        let data = &message.data;
        match message.subject.as_str() {
            "task.derivation.completed" if self.is_ours(data) => {
                let count = field(data, "task_count").and_then(Value::as_u64).unwrap_or_default();
                self.expected = Some(usize::try_from(count).unwrap_or(usize::MAX));
            }
            "task.derivation.failed" if self.is_ours(data) => {
                self.failed = Some(text(data, "reason").unwrap_or_else(|| "without a reason".to_owned()));
            }
            subject if subject.starts_with(DEAD) => {
                let reason = text(data, "reason").unwrap_or_else(|| "without a reason".to_owned());
                self.failed = Some(format!("{subject}: {reason}"));
            }
            CREATED => self.created += 1,
            "workflow.task.assigned" => {
                self.assigned.extend(text(data, "task_id"));
                self.last_ms = at_ms;
            }
            _ => {}
        }
        let header = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Cofferdam-Plugin"));
        let header = header.and_then(|(_, value)| Some(value.as_str()?.to_owned()));
        let plugin = header.or_else(|| text(data, "producer")).unwrap_or_else(|| "unknown".to_owned());
        Event { subject: message.subject.clone(), plugin, outcome: "published".to_owned(), ms: 0.0, at_ms }
    }

    fn is_ours(&self, data: &Value) -> bool {
        text(data, "plan_id").is_some_and(|id| id == self.plan_id)
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

/// A key of the message, or of the payload in its envelope.
fn field<'a>(data: &'a Value, key: &str) -> Option<&'a Value> {
    data.get(key).filter(|value| !value.is_null()).or_else(|| data.get("payload")?.get(key))
}

fn text(data: &Value, key: &str) -> Option<String> {
    field(data, key)?.as_str().map(str::to_owned)
}

/// `2026-01-02T03:04:05.678Z` as milliseconds since 1970.
fn epoch_ms(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (clock.next()?.parse::<u64>().ok()?, clock.next()?.parse::<u64>().ok()?);
    let (second, fraction) = clock.next().map(|second| second.split_once('.').unwrap_or((second, "")))?;
    let second = second.parse::<u64>().ok()?;
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day)
        .checked_sub(719_469)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
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
    fn times_are_counted_from_1970() {
        for (time, expect) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2026-01-02T03:04:05.678Z", Some(1_767_323_045_678)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000)),
            ("2026-01-02T03:04:05.6Z", Some(1_767_323_045_600)),
            ("yesterday", None),
        ] {
            assert_eq!(epoch_ms(time), expect, "{time}");
        }
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
