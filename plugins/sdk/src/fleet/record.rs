//! The derivation record: one JSON document in the cell `derivation/<plan_id>` of the state space `derivation`, which
//! the plugins of task derivation share. Compare-and-set on the cell makes the terminal event single.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Cause, Seen, Stage, Timestamp, derivation_id};
use crate::{state, state::StateError};

const KEY: &str = "record";
/// Beside the record, so that plugins which only read the record need not rewrite it.
const PROMPT_KEY: &str = "prompt";
const SCHEMA: u32 = 1;
/// The record rides in a cell of bounded size.
const WARNINGS: usize = 50;
const WARNING_CHARS: usize = 300;
/// A message of an earlier derivation that does not say so is older than this one by more than the streams' clocks differ.
const CLOCKS_DIFFER_MS: u64 = 60_000;

/// Where a derivation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    #[default]
    Open,
    Completed,
    Failed,
}

/// One job given to the executor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// From 1 within an opening.
    pub attempt: u32,
    pub job_id: String,
    /// Once it is known.
    pub deliberation_id: Option<String>,
    pub submitted_at: Timestamp,
    /// When its answer was read, whatever was in it: what follows is no longer the executor's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// `<kind>: <detail>` of its rejection: it has come to nothing.
    pub rejected: Option<String>,
}

/// A timer that is set for a derivation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timer {
    pub id: String,
    pub at: Timestamp,
    /// The plugin that set it, which alone may take it back.
    pub by: String,
}

/// How a derivation ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    pub at: Timestamp,
    pub task_count: u32,
    /// `<error kind>: <what happened>`; empty for success.
    pub reason: String,
}

/// The state of one plan's derivation. prompt-builder (or plan-reader, in its place) opens it, counts attempts and fails it;
/// dependency-analyzer completes it; all may warn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Set by [`Record::save`].
    pub schema: u32,
    pub plan_id: String,
    pub story_id: String,
    /// Of the plan.
    pub title: String,
    /// Requested roles as CreateTasks names them; never empty.
    pub roles: Vec<String>,
    pub requested_by: Option<String>,
    pub status: RecordStatus,
    /// How often the derivation was opened, from 1: part of the idempotency keys of what ends it.
    pub run: u32,
    /// The attempt that was submitted last, from 1; 0 before the first.
    pub attempt: u32,
    pub attempts: Vec<Attempt>,
    /// What wakes the derivation up if nothing else does. Records of older versions, and those of answers that nobody here
    /// asked for, have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
    pub opened_at: Timestamp,
    /// The trigger: answers that come back uncorrelated continue it.
    pub cause: Cause,
    pub seen: Seen,
    pub warnings: Vec<String>,
    pub outcome: Option<Outcome>,
    /// What another version or a third party keeps here.
    #[serde(flatten)]
    pub further: Map<String, Value>,
}

impl Record {
    /// The record of the event's cell. One that a newer version wrote is an error, which is a retry.
    pub fn load() -> Result<Option<Self>, StateError> {
        let record: Option<Self> = state::load(KEY)?;
        match record {
            Some(record) if record.schema > SCHEMA => Err(StateError::Unreadable {
                key: KEY.into(),
                reason: format!("its schema is {}, this version knows up to {SCHEMA}", record.schema),
            }),
            record => Ok(record),
        }
    }

    /// Writes the record; the prompt goes when the derivation has ended.
    pub fn save(&mut self) -> Result<(), StateError> {
        self.schema = SCHEMA;
        if !self.is_open() {
            state::delete(PROMPT_KEY)?;
        }
        state::save(KEY, self)
    }

    /// A derivation opened by `cause`, which follows `earlier` if the plan had one.
    pub fn open(plan_id: &str, cause: Cause, earlier: Option<Self>) -> Self {
        let earlier = earlier.unwrap_or_default();
        Self {
            plan_id: plan_id.into(),
            run: earlier.run + 1,
            opened_at: Timestamp::now(),
            cause,
            seen: earlier.seen,
            further: earlier.further,
            ..Self::default()
        }
    }

    pub fn is_open(&self) -> bool {
        self.status == RecordStatus::Open
    }

    /// Whether this derivation has taken care of a trigger that was stored then: it was still open, or not even begun.
    pub fn covers(&self, stored: Timestamp) -> bool {
        let ended = self.outcome.as_ref().map(|outcome| outcome.at).unwrap_or_default();
        self.is_open() || stored <= ended.max(self.opened_at)
    }

    /// Whether a message that was stored then is about this opening: it says so by `run`, or, if it says nothing, is not much
    /// older than the opening.
    pub fn concerns(&self, run: Option<u32>, stored: Timestamp) -> bool {
        match run {
            Some(run) => run == self.run,
            None => self.opened_at.millis_since(stored) <= CLOCKS_DIFFER_MS,
        }
    }

    /// Whether something is still to come of this attempt: it is the last that was submitted, and was not rejected.
    pub fn is_out(&self, attempt: u32) -> bool {
        let rejected = self.current_attempt().is_some_and(|attempt| attempt.rejected.is_some());
        self.is_open() && self.attempt > 0 && attempt == self.attempt && !rejected
    }

    /// Whether no attempt is out, and the next one has to be submitted some day.
    pub fn rests(&self) -> bool {
        self.is_open() && !self.is_out(self.attempt)
    }

    /// The prompt of the first attempt, kept for the next.
    pub fn prompt() -> Result<Option<String>, StateError> {
        Ok(state::get(PROMPT_KEY)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub fn save_prompt(prompt: &str) -> Result<(), StateError> {
        state::put(PROMPT_KEY, prompt)
    }

    /// A new attempt is out, as this job.
    pub fn submitted(&mut self, job_id: &str) {
        self.attempt += 1;
        self.attempts.push(Attempt {
            attempt: self.attempt,
            job_id: job_id.into(),
            submitted_at: Timestamp::now(),
            ..Attempt::default()
        });
    }

    /// An answer to this attempt was read.
    pub fn answered(&mut self, attempt: u32) {
        let now = Timestamp::now();
        if let Some(known) = self.attempt_mut(attempt) {
            known.answered_at.get_or_insert(now);
        }
    }

    /// The attempt that is out has come to nothing.
    pub fn rejected(&mut self, reason: &str) {
        let attempt = self.attempt;
        if self.attempt_mut(attempt).is_none() {
            // Of an answer that nobody here asked for.
            self.attempts.push(Attempt { attempt, ..Attempt::default() });
        }
        if let Some(known) = self.attempt_mut(attempt) {
            known.rejected = Some(reason.into());
        }
    }

    /// The entry of an attempt.
    pub fn attempt_mut(&mut self, attempt: u32) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|known| known.attempt == attempt)
    }

    /// The entry of the attempt that is out now.
    pub fn current_attempt(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|known| known.attempt == self.attempt)
    }

    /// The entry of the attempt with this deliberation. The host's own executor answers with the job's id for it.
    pub fn attempt_of(&self, deliberation_id: &str) -> Option<&Attempt> {
        self.attempts.iter().find(|known| {
            known.deliberation_id.as_deref() == Some(deliberation_id) || known.job_id == deliberation_id
        })
    }

    /// What messages between stages say about `attempt`.
    pub fn stage(&self, attempt: u32) -> Stage {
        Stage {
            plan_id: self.plan_id.clone(),
            story_id: self.story_id.clone(),
            derivation_id: derivation_id(&self.plan_id),
            attempt,
            run: Some(self.run),
        }
    }

    /// The `derivation_request_id` of the terminal event: the answering deliberation, else that of the attempt out now,
    /// else the derivation's own id.
    pub fn request_id(&self, deliberation_id: Option<&str>) -> String {
        let known = || self.current_attempt().and_then(|attempt| attempt.deliberation_id.clone());
        deliberation_id.map(str::to_owned).or_else(known).unwrap_or_else(|| derivation_id(&self.plan_id))
    }

    /// The idempotency operation of what happens once in each opening, such as its end: `<name>:<run>`.
    pub fn operation(&self, name: &str) -> String {
        format!("{name}:{}", self.run)
    }

    /// The idempotency operation of what happens once in each attempt: `<name>:<run>:<attempt>`.
    pub fn attempt_operation(&self, name: &str, attempt: u32) -> String {
        format!("{name}:{}:{attempt}", self.run)
    }

    /// Notes a warning, for people; the log has them too.
    pub fn warn(&mut self, warning: impl AsRef<str>) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(warning.as_ref().chars().take(WARNING_CHARS).collect());
        }
    }

    pub fn complete(&mut self, task_count: u32) {
        self.status = RecordStatus::Completed;
        self.outcome = Some(Outcome { at: Timestamp::now(), task_count, reason: String::new() });
    }

    pub fn fail(&mut self, reason: &str) {
        self.status = RecordStatus::Failed;
        self.outcome = Some(Outcome { at: Timestamp::now(), task_count: 0, reason: reason.into() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Event, Failure,
        testing::{Host, event},
    };

    fn complete(_: Event) -> Result<(), Failure> {
        let mut record = Record::load()?.unwrap_or_default();
        record.complete(3);
        record.save()?;
        Ok(())
    }

    #[test]
    fn a_record_keeps_what_others_wrote_into_it_and_drops_the_prompt_at_the_end() {
        let mut host = Host::new().order_key("p");
        host.set_value("p", "record", &json!({"schema": 1, "plan_id": "p", "third_party": {"note": 1}}));
        host.set_value("p", "prompt", &"text");
        assert_eq!(host.run(complete, event("x", "{}")).result, Ok(()));
        let record: Value = host.value("p", "record").unwrap();
        assert_eq!((&record["status"], &record["third_party"]["note"]), (&json!("completed"), &json!(1)));
        assert_eq!(host.cells().get("p", "prompt"), None);
    }

    #[test]
    fn a_record_of_a_newer_version_is_handed_back() {
        let mut host = Host::new().order_key("p");
        host.set_value("p", "record", &json!({"schema": 2}));
        assert!(matches!(host.run(complete, event("x", "{}")).result, Err(Failure::Retry { .. })));
    }

    #[test]
    fn a_trigger_is_covered_by_the_derivation_that_was_open_when_it_was_stored() {
        let at = |seconds| Timestamp::default().plus_seconds(seconds);
        let mut record = Record { opened_at: at(100), ..Record::default() };
        assert!(record.covers(at(500)), "it is open");
        record.status = RecordStatus::Failed;
        assert!(record.covers(at(100)) && !record.covers(at(101)));
        record.outcome = Some(Outcome { at: at(120), ..Outcome::default() });
        assert!(record.covers(at(90)) && record.covers(at(120)) && !record.covers(at(121)));
    }

    #[test]
    fn a_message_of_an_earlier_opening_is_told_by_its_run_or_by_its_age() {
        let at = |seconds| Timestamp::default().plus_seconds(seconds);
        let record = Record { run: 2, opened_at: at(100), ..Record::default() };
        assert!(record.concerns(Some(2), at(0)) && !record.concerns(Some(1), at(200)));
        assert!(record.concerns(None, at(40)) && !record.concerns(None, at(39)));
    }

    #[test]
    fn an_attempt_is_out_until_it_is_rejected_or_the_derivation_ends() {
        let mut record = Record::default();
        assert!(record.rests() && !record.is_out(0), "nothing was submitted");
        record.submitted("j");
        record.answered(1);
        assert!(record.is_out(1) && !record.rests() && !record.is_out(2));
        record.rejected("no_tasks: none");
        assert!(record.rests() && !record.is_out(1));
        record.submitted("k");
        assert!(record.is_out(2) && !record.is_out(1));
        record.fail("timeout");
        assert!(!record.is_out(2) && !record.rests());
        let mut unrequested = Record { attempt: 3, ..Record::default() };
        unrequested.rejected("no_tasks: none");
        assert!(unrequested.rests() && unrequested.attempts.len() == 1);
    }

    #[test]
    fn reopening_counts_and_remembers_what_was_seen() {
        let first = Record::open("p", Cause::default(), None);
        let second = Record::open("p", Cause::default(), Some(first.clone()));
        assert_eq!((first.run, second.run), (1, 2));
        assert_eq!(second.operation("completed"), "completed:2");
        assert_eq!(second.request_id(None), "derive-p");
        assert_eq!(second.request_id(Some("d")), "d");
    }
}
