//! Which question of its event an inference is, and the job that it becomes. Every run of the event that asks the same means
//! the same job, whatever else it does: so an answer is paid for once.

use std::collections::{BTreeSet, HashMap};

use cofferdam_sandbox::{Agent, ExecutorError, Inference, Job};
use sha2::{Digest, Sha256};

use super::super::Run;
use crate::{
    executor::{
        job::{AnswerTo, Queue, QueuedJob},
        limits::{self, DEFAULT_MODEL, MAX_JOB, Names, within},
        sampling,
    },
    observe::trace::hex,
};

/// Of one event.
const MAX_ASKED: usize = 256;
/// Of a question's hash in an id, in bytes: the guest that would make two alike deceives itself alone.
const DIGEST: usize = 8;
/// In seconds. Jobs are kept for a week.
const LONGEST: u32 = 24 * 60 * 60;

/// What this run has asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    count: usize,
    /// Of equal questions those that are answered, or still open.
    taken: HashMap<[u8; 32], BTreeSet<u32>>,
}

/// Which one it is: the `n`-th of those that are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    hash: [u8; 32],
    n: u32,
}

/// A question, and the job for it but for the id.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) question: Question,
    queue: Queue,
    own: String,
    queued: QueuedJob,
}

impl Asked {
    /// Its job: the first, or the one that asks again after so many failed.
    pub(super) fn job(&self, failed: u32) -> QueuedJob {
        let again = if failed == 0 { String::new() } else { format!("-t{failed}") };
        let id = self.queue.id(&format!("{}{again}", self.own));
        QueuedJob { id, ..self.queued.clone() }
    }
}

impl Questions {
    /// The first of those that are equal to it and not taken.
    fn take(&mut self, hash: [u8; 32]) -> Question {
        let taken = self.taken.entry(hash).or_default();
        let n = (0..).find(|n| !taken.contains(n)).unwrap_or_default();
        taken.insert(n);
        Question { hash, n }
    }

    /// It has no answer, and is the next to be asked if it is asked again.
    pub(super) fn give_back(&mut self, question: Question) {
        if let Some(taken) = self.taken.get_mut(&question.hash) {
            taken.remove(&question.n);
        }
    }
}

impl Run {
    /// May it be asked? Its job is not submitted yet.
    pub(super) fn ask(&mut self, mut asked: Inference, stream: bool) -> Result<Asked, ExecutorError> {
        self.may_have_effects().map_err(|why| {
            ExecutorError::Denied(format!("{why}; what a model answers is recorded, which is one"))
        })?;
        let default_model = self.executor()?.model.clone();
        self.model_granted(asked.model.as_deref())?;
        check(&asked)?;
        if self.inferences.questions.count == MAX_ASKED {
            return Err(ExecutorError::Limit(format!(
                "this event has asked {MAX_ASKED} questions, the limit"
            )));
        }
        let model = asked.model.take().filter(|model| model != DEFAULT_MODEL).unwrap_or(default_model);
        let hash = hash(&model, &asked)?;
        let event = &self.occasion.event_id;
        let job = job(event.clone(), model, asked);
        limits::check_parts(&job, &Names::WIT)?;
        let queue = Queue::of(&self.plugin.name, &job);
        let question = self.inferences.questions.take(hash);
        // Dots would make more tokens of the subject.
        let own = format!("{}-i{}-{}", event.replace('.', "-"), question.n, hex(&hash[..DIGEST]));
        let queued = QueuedJob {
            id: queue.id(&own),
            plugin: self.plugin.name.clone(),
            job,
            answer: AnswerTo::Guest,
            stream,
            parent: None,
        };
        let size = serde_json::to_vec(&queued).map_or(0, |body| body.len());
        if let Err(over) = within("the whole job, in JSON,", size, MAX_JOB) {
            self.inferences.questions.give_back(question);
            return Err(over);
        }
        self.inferences.questions.count += 1;
        Ok(Asked { question, queue, own, queued })
    }
}

fn check(asked: &Inference) -> Result<(), ExecutorError> {
    if asked.timeout_seconds > LONGEST {
        let seconds = asked.timeout_seconds;
        return Err(ExecutorError::Invalid(format!(
            "timeout-seconds is {seconds}, more than a day ({LONGEST})"
        )));
    }
    sampling::check(&asked.sampling)
}

/// Of all that the answer depends on. How long somebody waits for it may follow from the time that is left, and is none of that.
fn hash(model: &str, asked: &Inference) -> Result<[u8; 32], ExecutorError> {
    let parts = serde_json::to_vec(&(model, &asked.system, &asked.prompt, &asked.sampling));
    let parts = parts.map_err(|error| ExecutorError::Invalid(error.to_string()))?;
    Ok(Sha256::digest(parts).into())
}

/// Of one agent without a name, for nobody but the guest hears of it. Its template is the system's words: the backend that asks
/// puts no prompt into that of a guest's question.
fn job(event: String, model: String, asked: Inference) -> Job {
    let agent = Agent {
        id: String::new(),
        role: String::new(),
        model: String::new(),
        prompt_template: asked.system.unwrap_or_default(),
    };
    Job {
        task_id: event,
        prompt: asked.prompt,
        role: String::new(),
        model: Some(model),
        agents: vec![agent],
        story_id: None,
        plan_id: None,
        timeout_seconds: asked.timeout_seconds,
        max_retries: 0,
        metadata: Vec::new(),
        priority: asked.priority,
        sampling: asked.sampling,
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::{Priority, Sampling};

    use super::*;

    fn inference(prompt: &str) -> Inference {
        Inference {
            model: None,
            system: None,
            prompt: prompt.into(),
            sampling: Sampling::default(),
            priority: Priority::Normal,
            timeout_seconds: 0,
        }
    }

    #[test]
    fn equal_questions_are_told_apart_by_their_order() {
        let mut questions = Questions::default();
        let (a, b) = ([1; 32], [2; 32]);
        let taken = [a, a, b, a].map(|hash| questions.take(hash).n);
        assert_eq!(taken, [0, 1, 0, 2]);
        // One that failed is asked again before a new one.
        questions.give_back(Question { hash: a, n: 1 });
        assert_eq!([a, a].map(|hash| questions.take(hash).n), [1, 3]);
    }

    #[test]
    fn a_question_is_what_its_answer_depends_on() {
        let of = |asked: &Inference| hash("m", asked).unwrap();
        let plain = inference("p");
        assert_eq!(of(&plain), of(&Inference { timeout_seconds: 7, ..inference("p") }));
        let mut seen = vec![of(&plain), hash("other", &plain).unwrap()];
        seen.push(of(&inference("q")));
        seen.push(of(&Inference { system: Some("s".into()), ..inference("p") }));
        let sampling = Sampling { seed: Some(1), ..Sampling::default() };
        seen.push(of(&Inference { sampling, ..inference("p") }));
        let all: BTreeSet<_> = seen.iter().collect();
        assert_eq!(all.len(), seen.len());
    }

    #[test]
    fn an_answer_is_waited_for_a_day_at_most() {
        let asked = |seconds| Inference { timeout_seconds: seconds, ..inference("p") };
        assert_eq!(check(&asked(86_400)), Ok(()));
        let why = check(&asked(86_401)).unwrap_err().to_string();
        assert!(why.contains("86401"), "{why}");
    }
}
