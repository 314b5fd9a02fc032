//! What a job ends with, and what is left of it where it can't be stored: a job that has ended is never worked again,
//! only to fail in the same way.

use cofferdam_bus::Message;
use cofferdam_sandbox::{JobPhase, JobStatus};

use super::{QueuedJob, response, status};

/// Of an error, in bytes, where it has to be small.
const MAX_ERROR: usize = 1 << 10;

/// The end of a job, to be committed.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) effects: Vec<Message>,
    pub(super) outcome: &'static str,
    told: Told,
    failure: Option<(String, &'static str)>,
}

/// How much is said of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    All,
    /// A failure in a few words.
    Briefly,
    /// Nothing but the job's status.
    StatusOnly,
}

impl Ending {
    /// With what the backend made of it.
    pub(super) fn of(effects: Vec<Message>, outcome: &'static str) -> Self {
        Self { effects, outcome, told: Told::All, failure: None }
    }

    pub(super) fn failed(queued: &QueuedJob, error: String, kind: &'static str, envelope: &str) -> Self {
        let mut effects = response::failed(queued, &error, kind, envelope);
        effects.push(failed_status(&queued.id, &error));
        Self { effects, outcome: "failed", told: Told::All, failure: Some((error, kind)) }
    }

    /// Less of the same, for the bus will not store this, for `reason`. Nothing if there is no less.
    pub(super) fn less(self, queued: &QueuedJob, reason: &str, envelope: &str) -> Option<Self> {
        let told = match self.told {
            Told::All => Told::Briefly,
            Told::Briefly => Told::StatusOnly,
            Told::StatusOnly => return None,
        };
        let (error, kind) = self
            .failure
            .unwrap_or_else(|| (format!("the result can't be stored: {reason}"), "result_too_large"));
        let error = cut(&error, MAX_ERROR).to_owned();
        let (job, task_id) = (&queued.id, &queued.job.task_id);
        let mut effects = Vec::new();
        if told == Told::Briefly {
            tracing::warn!(
                job,
                task_id,
                "the job's end can't be stored as it is, a short failure is: {reason}"
            );
            effects = response::failed_briefly(queued, &error, kind, envelope);
        } else {
            tracing::error!(
                job,
                task_id,
                subject = response::FAILED,
                "nobody will be told that the job failed ({error}), for the message can't be stored ({reason}); create a \
                 stream that covers {:?} and takes messages of 16 KiB, then have the task submitted again",
                response::FAILED
            );
        }
        effects.push(failed_status(&queued.id, &error));
        Some(Self { effects, outcome: "failed", told, failure: Some((error, kind)) })
    }
}

fn failed_status(job: &str, error: &str) -> Message {
    let error = Some(cut(error, MAX_ERROR).to_owned());
    status::message(job, &JobStatus { phase: JobPhase::Failed, execution_id: None, error })
}

/// At most so many bytes, in whole characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::executor::testing;

    fn json(message: &Message) -> Value {
        serde_json::from_slice(&message.data).unwrap()
    }

    fn subjects(ending: &Ending) -> Vec<&str> {
        ending.effects.iter().map(|effect| effect.subject.as_str()).collect()
    }

    #[test]
    fn a_result_that_cannot_be_stored_becomes_a_short_failure_then_a_mere_status() {
        let queued = testing::job(&["a", "b"]);
        let whole = Ending::of(testing::messages(&["agent.response.completed"]), "done");

        let reason = "effects of 2000000 bytes together are over the limit";
        let brief = whole.less(&queued, reason, "mirror").expect("something less");
        assert_eq!(subjects(&brief), ["agent.response.failed", "agent.response.failed", "cd.q.o-1-j0"]);
        assert_eq!(brief.outcome, "failed");
        let told = json(&brief.effects[1]);
        assert_eq!((&told["task_id"], &told["agent_id"]), (&"t-1".into(), &"b".into()));
        assert_eq!(told["error_type"], "result_too_large");
        assert_eq!(told["error"], format!("the result can't be stored: {reason}"));
        assert_eq!(told["payload"].get("constraints"), None);

        let last = brief.less(&queued, "no stream", "mirror").expect("a status");
        assert_eq!(subjects(&last), ["cd.q.o-1-j0"]);
        let status = json(&last.effects[0]);
        assert_eq!((&status["phase"], &status["error"]), (&"failed".into(), &told["error"]));
        assert!(last.less(&queued, "whatever", "mirror").is_none());
    }

    #[test]
    fn a_failure_keeps_its_own_error_cut_to_size() {
        let queued = testing::job(&["a"]);
        let whole = Ending::failed(&queued, "ü".repeat(4000), "refused", "bare");
        assert_eq!(json(&whole.effects[0])["error"].as_str().map(str::len), Some(8000));
        assert_eq!(json(&whole.effects[1])["error"].as_str().map(str::len), Some(MAX_ERROR));

        let brief = whole.less(&queued, "too much", "bare").expect("something less");
        let told = json(&brief.effects[0]);
        assert_eq!(
            (told["error"].as_str().map(str::len), &told["error_type"]),
            (Some(1024), &"refused".into())
        );
    }

    #[test]
    fn a_cut_leaves_whole_characters() {
        for (text, max, cut_text) in [("abc", 5, "abc"), ("abc", 2, "ab"), ("aü", 2, "a"), ("", 0, "")] {
            assert_eq!(cut(text, max), cut_text, "{text:?} {max}");
        }
    }
}
