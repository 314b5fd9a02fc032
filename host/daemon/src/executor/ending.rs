//! What a job ends with, and what is left of it where it can't be stored: a job that has ended is never worked again,
//! only to fail in the same way.

use cofferdam_bus::Message;
use cofferdam_sandbox::{Agent, JobPhase};

use super::{
    QueuedJob,
    backends::{Answered, Failed},
    job::AnswerTo,
    response::{self, About},
    status::{Answer, Record},
};
use crate::observe::trace;

/// Of an error, in bytes, where it has to be small.
const MAX_ERROR: usize = 1 << 10;
/// How a job fails that somebody wants to end.
pub(super) const CANCELLED: &str = "cancelled";

/// A job that comes to its end, and how that is told.
pub(super) struct Case<'a> {
    pub(super) queued: &'a QueuedJob,
    /// What is known of it whatever its end is.
    pub(super) record: Record,
    pub(super) duration_ms: u64,
    pub(super) envelope: &'a str,
    /// Its results go to its task's own subject, too.
    pub(super) task_results: bool,
}

/// The end of a job, to be committed.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) effects: Vec<Message>,
    pub(super) outcome: &'static str,
    pub(super) record: Record,
    told: Told,
    /// There are no events of ours.
    is_silent: bool,
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
    /// Takes the answer out of the record, for its event has it. Whether there was one.
    fn drop_text(&mut self, id: &str) -> bool {
        let Some(answer) = self.record.answer.as_mut().filter(|answer| !answer.dropped) else { return false };
        (answer.text, answer.reasoning, answer.dropped) = (String::new(), String::new(), true);
        self.effects.pop();
        self.effects.push(self.record.message(id));
        for effect in &mut self.effects {
            // It is stamped anew with each commit.
            effect.headers.retain(|(name, _)| name != trace::HEADER);
        }
        true
    }
}

impl Case<'_> {
    fn about(&self) -> About<'_> {
        About { queued: self.queued, duration_ms: self.duration_ms, envelope: self.envelope }
    }

    /// With these responses, unless nobody waits for events. `also` comes with the record, which is the last.
    fn ending(
        &self,
        responses: Vec<Message>,
        also: Vec<Message>,
        record: Record,
        outcome: &'static str,
    ) -> Ending {
        let is_silent = self.queued.answer == AnswerTo::Guest || responses.is_empty();
        let mut effects = if is_silent { Vec::new() } else { responses };
        if self.task_results {
            let task_id = &self.queued.job.task_id;
            let results: Vec<Message> =
                effects.iter().filter_map(|response| response::task_result(response, task_id)).collect();
            effects.extend(results);
        }
        effects.extend(also);
        effects.push(record.message(&self.queued.id));
        Ending { effects, outcome, record, told: Told::All, is_silent, failure: None }
    }

    /// With an answer.
    pub(super) fn answered(&self, agent: &Agent, answered: Answered, also: Vec<Message>) -> Ending {
        let responses =
            if answered.told { Vec::new() } else { vec![self.about().completed(agent, &answered)] };
        let Answered { text, reasoning, model, finish, tokens_in, tokens_out, cached, .. } = answered;
        let asked_for = matches!(self.queued.answer, AnswerTo::Client | AnswerTo::Guest);
        let answer =
            Answer { agent: agent.id.clone(), text, reasoning, model, finish, cached, dropped: false };
        let record = Record {
            phase: JobPhase::Done,
            execution_id: Some(self.queued.id.clone()),
            tokens_in,
            tokens_out,
            answer: asked_for.then_some(answer),
            ..self.record.clone()
        };
        self.ending(responses, also, record, "done")
    }

    /// Another executor has it.
    pub(super) fn accepted(&self, execution_id: String) -> Ending {
        let record = Record {
            phase: JobPhase::Running,
            execution_id: Some(execution_id),
            ended: 0,
            ..self.record.clone()
        };
        self.ending(Vec::new(), Vec::new(), record, "accepted")
    }

    /// Its agents have it, each a job of its own.
    pub(super) fn split(&self, parts: Vec<String>) -> Ending {
        let record = Record { phase: JobPhase::Running, parts, ended: 0, ..self.record.clone() };
        self.ending(Vec::new(), Vec::new(), record, "split")
    }

    /// Without an answer.
    pub(super) fn failed(&self, failed: Failed, also: Vec<Message>) -> Ending {
        let Failed { error, kind, tokens_in, tokens_out, told } = failed;
        let responses = if told { Vec::new() } else { self.about().failed(&error, kind) };
        let record = Record { tokens_in, tokens_out, ..self.failure(&error, kind) };
        let outcome = if kind == CANCELLED { CANCELLED } else { "failed" };
        Ending { failure: Some((error, kind)), ..self.ending(responses, also, record, outcome) }
    }

    /// Less of the same, for the bus will not store this, for `reason`. Nothing if there is no less.
    pub(super) fn less(&self, mut ending: Ending, reason: &str) -> Option<Ending> {
        if self.queued.answer == AnswerTo::Client && ending.drop_text(&self.queued.id) {
            tracing::info!(
                job = self.queued.id,
                "the answer is stored in its event alone, if that can be: beside it, for the status, it can't ({reason})"
            );
            return Some(ending);
        }
        let told = match ending.told {
            Told::All if ending.is_silent => Told::StatusOnly,
            Told::All => Told::Briefly,
            Told::Briefly => Told::StatusOnly,
            Told::StatusOnly => return None,
        };
        let (error, kind) = ending
            .failure
            .unwrap_or_else(|| (format!("the result can't be stored: {reason}"), "result_too_large"));
        let error = cut(&error, MAX_ERROR).to_owned();
        let (job, task_id) = (&self.queued.id, &self.queued.job.task_id);
        let mut effects = Vec::new();
        if told == Told::Briefly {
            tracing::warn!(
                job,
                task_id,
                "the job's end can't be stored as it is, a short failure is: {reason}"
            );
            effects = self.about().failed_briefly(&error, kind);
        } else if !ending.is_silent {
            tracing::error!(
                job,
                task_id,
                subject = response::FAILED,
                "nobody will be told that the job failed ({error}), for the message can't be stored ({reason}); create a \
                 stream that covers {:?} and takes messages of 16 KiB, then have the task submitted again",
                response::FAILED
            );
        }
        let (tokens_in, tokens_out) = (ending.record.tokens_in, ending.record.tokens_out);
        let record = Record { tokens_in, tokens_out, ..self.failure(&error, kind) };
        effects.push(record.message(&self.queued.id));
        let outcome = if kind == CANCELLED { CANCELLED } else { "failed" };
        let is_silent = ending.is_silent;
        Some(Ending { effects, outcome, record, told, is_silent, failure: Some((error, kind)) })
    }

    fn failure(&self, error: &str, kind: &'static str) -> Record {
        Record {
            phase: if kind == CANCELLED { JobPhase::Cancelled } else { JobPhase::Failed },
            error: Some(cut(error, MAX_ERROR).to_owned()),
            kind: Some(kind.to_owned()),
            ..self.record.clone()
        }
    }
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

    fn case<'a>(queued: &'a QueuedJob, envelope: &'a str) -> Case<'a> {
        let record =
            Record { started: 5, ended: 9, worker: "w".into(), ..Record::of(queued, JobPhase::Running) };
        Case { queued, record, duration_ms: 3, envelope, task_results: false }
    }

    fn answer(text: &str) -> Answered {
        Answered { text: text.into(), tokens_in: 2, tokens_out: 1, ..Answered::default() }
    }

    #[test]
    fn a_result_that_cannot_be_stored_becomes_a_short_failure_then_a_mere_status() {
        let queued = testing::job(&["a", "b"]);
        let case = case(&queued, "mirror");
        let whole = case.answered(&queued.job.agents[0], answer("x"), Vec::new());
        assert_eq!(subjects(&whole), ["agent.response.completed", "cd.e.o-1-j0"]);

        let reason = "effects of 2000000 bytes together are over the limit";
        let brief = case.less(whole, reason).expect("something less");
        assert_eq!(subjects(&brief), ["agent.response.failed", "agent.response.failed", "cd.e.o-1-j0"]);
        assert_eq!(brief.outcome, "failed");
        let told = json(&brief.effects[1]);
        assert_eq!((&told["task_id"], &told["agent_id"]), (&"t-1".into(), &"b".into()));
        assert_eq!(told["error_type"], "result_too_large");
        assert_eq!(told["error"], format!("the result can't be stored: {reason}"));
        assert_eq!(told["payload"].get("constraints"), None);

        let last = case.less(brief, "no stream").expect("a status");
        assert_eq!(subjects(&last), ["cd.e.o-1-j0"]);
        let status = json(&last.effects[0]);
        assert_eq!((&status["phase"], &status["error"]), (&"failed".into(), &told["error"]));
        assert_eq!((&status["tokens_in"], &status["worker"]), (&2.into(), &"w".into()), "they were paid for");
        assert!(case.less(last, "whatever").is_none());
    }

    #[test]
    fn a_failure_keeps_its_own_error_cut_to_size() {
        let queued = testing::job(&["a"]);
        let case = case(&queued, "bare");
        let whole = case.failed(Failed::new("refused", "ü".repeat(4000)), Vec::new());
        assert_eq!(json(&whole.effects[0])["error"].as_str().map(str::len), Some(8000));
        assert_eq!(json(&whole.effects[1])["error"].as_str().map(str::len), Some(MAX_ERROR));

        let brief = case.less(whole, "too much").expect("something less");
        let told = json(&brief.effects[0]);
        assert_eq!(
            (told["error"].as_str().map(str::len), &told["error_type"]),
            (Some(1024), &"refused".into())
        );
    }

    #[test]
    fn who_asks_for_the_answer_finds_it_in_the_record_and_only_guests_have_no_event() {
        for (answer_to, events, kept) in
            [(AnswerTo::Fleet, 1, false), (AnswerTo::Client, 1, true), (AnswerTo::Guest, 0, true)]
        {
            let queued = QueuedJob { answer: answer_to, ..testing::job(&["a"]) };
            let case = case(&queued, "mirror");
            let done = case.answered(&queued.job.agents[0], answer("x"), Vec::new());
            assert_eq!(done.effects.len(), events + 1, "{answer_to:?}");
            assert_eq!(done.record.answer.as_ref().map(|answer| answer.text.as_str()), kept.then_some("x"));
            let failed = case.failed(Failed::new(CANCELLED, "enough"), Vec::new());
            assert_eq!((failed.effects.len(), failed.outcome), (events + 1, "cancelled"));
            assert_eq!(failed.record.phase, JobPhase::Cancelled);
            let mut less = case.less(done, "too much").expect("something less");
            if answer_to == AnswerTo::Client {
                less = case.less(less, "too much").expect("even less");
            }
            assert_eq!((less.effects.len(), less.outcome), (events + 1, "failed"));
        }
    }

    #[test]
    fn a_clients_answer_that_does_not_fit_twice_is_in_its_event_alone() {
        let queued = QueuedJob { answer: AnswerTo::Client, ..testing::job(&["a"]) };
        let case = Case { task_results: true, ..case(&queued, "mirror") };
        let answered = Answered { reasoning: "because".into(), model: "m".into(), ..answer("x") };
        let mut whole =
            case.answered(&queued.job.agents[0], answered, testing::messages(&["vllm.streaming.x"]));
        let events: Vec<Message> = whole.effects[..3].to_vec();
        for effect in &mut whole.effects {
            effect.headers.push((trace::HEADER.into(), "as a commit does".into()));
        }
        let less = case.less(whole, "too much").expect("the same without the text");
        assert_eq!(less.effects[..3], events[..], "the events are as they were");
        let record: Record = serde_json::from_slice(&less.effects[3].data).unwrap();
        assert_eq!((&record, less.outcome), (&less.record, "done"));
        assert_eq!((record.phase, record.tokens_in), (JobPhase::Done, 2));
        let kept = Answer { agent: "a".into(), model: "m".into(), dropped: true, ..Answer::default() };
        assert_eq!(record.answer, Some(kept));

        let brief = case.less(less, "still too much").expect("a failure");
        assert_eq!(subjects(&brief), ["agent.response.failed", "cd.e.o-1-j0"]);
        assert_eq!(brief.record.kind.as_deref(), Some("result_too_large"));
        assert!(brief.record.answer.is_none());
    }

    #[test]
    fn results_go_to_their_task_where_that_is_wanted_and_the_record_is_the_last() {
        let queued = testing::job(&["a"]);
        let case = Case { task_results: true, ..case(&queued, "mirror") };
        let also = testing::messages(&["vllm.streaming.x"]);
        let done = case.answered(&queued.job.agents[0], answer("x"), also);
        assert_eq!(
            subjects(&done),
            ["agent.response.completed", "agent.results.t-1", "vllm.streaming.x", "cd.e.o-1-j0"]
        );
        assert_eq!(done.effects[0].data, done.effects[1].data);
    }

    #[test]
    fn a_cut_leaves_whole_characters() {
        for (text, max, cut_text) in [("abc", 5, "abc"), ("abc", 2, "ab"), ("aü", 2, "a"), ("", 0, "")] {
            assert_eq!(cut(text, max), cut_text, "{text:?} {max}");
        }
    }
}
