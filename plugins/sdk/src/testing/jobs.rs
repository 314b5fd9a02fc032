//! The functions of the executor, natively.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sha2::{Digest, Sha256};

use super::{
    Submitted, job_limits as limits,
    models::Answered,
    sys::{Current, current},
};
use crate::executor::{Chunk, Completion, ExecutorError, Inference, Job, JobStatus, Phase, Priority};

const DEFAULT_MODEL: &str = "default";

/// What one run has done of it.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) submitted: Vec<Submitted>,
    pub(super) cancelled: Vec<String>,
    /// Of a model, not of what is recorded.
    pub(super) asked: Vec<Inference>,
    inferences: usize,
    /// Of each question, which of its occurrences were answered.
    answered: BTreeMap<String, BTreeSet<u32>>,
    streams: BTreeMap<u32, Stream>,
    streams_given: u32,
}

#[derive(Debug)]
struct Stream {
    pieces: VecDeque<String>,
    outcome: Result<Completion, ExecutorError>,
}

pub(crate) fn submit(job: &Job) -> Result<String, ExecutorError> {
    current(|c| {
        c.denied().map_err(ExecutorError::Denied)?;
        if c.host.manifest.as_ref().is_some_and(|manifest| !manifest.may_submit(job)) {
            return Err(ExecutorError::Denied(format!("[asks] executor does not name {:?}", job.model)));
        }
        limits::job(job)?;
        if let Some(error) = &c.host.refuse_jobs {
            return Err(error.clone());
        }
        if c.jobs.submitted.len() == limits::JOBS {
            return Err(ExecutorError::Limit(format!("more than {} jobs", limits::JOBS)));
        }
        let id = id(c, job);
        c.jobs.submitted.push(Submitted { id: id.clone(), job: job.clone() });
        Ok(id)
    })
}

/// `<plugin>_<priority>_<model>_<own>`, as the host makes it.
fn id(c: &Current, job: &Job) -> String {
    let agent = job.agents.first().map(|agent| agent.model.as_str()).filter(|model| !model.is_empty());
    let model = agent.or(job.model.as_deref()).unwrap_or(DEFAULT_MODEL);
    let model: String = Sha256::digest(model).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let priority = match job.priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    };
    let (event, number) = (c.event_id.replace('.', "-"), c.jobs.submitted.len());
    format!("{}_{priority}_{model}_{event}-j{number}", c.plugin())
}

pub(crate) fn job_status(job_id: &str) -> Result<JobStatus, ExecutorError> {
    let unknown = JobStatus { phase: Phase::Unknown, execution_id: None, error: None };
    Ok(current(|c| c.host.job_status.get(job_id).cloned().unwrap_or(unknown)))
}

pub(crate) fn cancel_job(job_id: &str) -> Result<(), ExecutorError> {
    current(|c| {
        c.denied().map_err(ExecutorError::Denied)?;
        let parts: Vec<&str> = job_id.rsplitn(4, '_').collect();
        let known =
            matches!(parts[..], [_, _, "low" | "normal" | "high", _]) && parts.iter().all(|p| !p.is_empty());
        if !known {
            return Err(ExecutorError::Invalid(format!("{job_id:?} is not the id of a job")));
        }
        if parts[3] != c.plugin() {
            return Err(ExecutorError::Denied(format!("{job_id} is a job of {}", parts[3])));
        }
        if let Some(error) = &c.host.refuse_jobs {
            return Err(error.clone());
        }
        if !c.jobs.cancelled.iter().any(|id| id == job_id) {
            if c.jobs.cancelled.len() == limits::CANCELS {
                return Err(ExecutorError::Limit(format!("more than {} jobs cancelled", limits::CANCELS)));
            }
            c.jobs.cancelled.push(job_id.to_owned());
        }
        Ok(())
    })
}

pub(crate) fn infer(inferences: &[Inference]) -> Vec<Result<Completion, ExecutorError>> {
    current(|c| {
        let many = limits::count("inferences in one call", inferences.len(), limits::AT_ONCE);
        // Those of one call are different questions, though they be equal.
        let mut taken = Vec::new();
        let answers = inferences.iter().map(|asked| {
            many.clone()?;
            let (answered, question, n) = ask(c, asked, &taken)?;
            taken.push((question.clone(), n));
            if answered.outcome.is_ok() {
                c.jobs.answered.entry(question).or_default().insert(n);
            }
            answered.outcome
        });
        answers.collect()
    })
}

/// Asks a question whose occurrences before were answered, or are taken.
fn ask(
    c: &mut Current,
    asked: &Inference,
    taken: &[(String, u32)],
) -> Result<(Answered, String, u32), ExecutorError> {
    c.denied().map_err(ExecutorError::Denied)?;
    let model = asked.model.as_deref().unwrap_or(DEFAULT_MODEL);
    if c.host.manifest.as_ref().is_some_and(|manifest| !manifest.may_infer(model)) {
        return Err(ExecutorError::Denied(format!("[asks] executor does not name {model:?}")));
    }
    limits::inference(asked)?;
    if c.jobs.inferences == limits::INFERENCES {
        return Err(ExecutorError::Limit(format!("more than {} inferences", limits::INFERENCES)));
    }
    c.jobs.inferences += 1;
    // How long it is waited for is no part of it.
    let question = format!("{:?}", (model, &asked.system, &asked.prompt, &asked.sampling));
    let answered = c.jobs.answered.get(&question);
    let free = |n: &u32| {
        !answered.is_some_and(|answered| answered.contains(n))
            && !taken.iter().any(|(other, m)| *other == question && m == n)
    };
    let n = (0..).find(free).unwrap_or_default();
    let event = format!("{} {:?}", c.event_id, asked.priority);
    let answered = c.host.models.answer((event, question.clone(), n), asked);
    if !answered.recalled {
        c.jobs.asked.push(asked.clone());
    }
    Ok((answered, question, n))
}

pub(crate) fn tokens(asked: &Inference) -> Result<Tokens, ExecutorError> {
    current(|c| {
        if c.jobs.streams.len() == limits::STREAMS {
            return Err(ExecutorError::Limit(format!("more than {} streams open", limits::STREAMS)));
        }
        let (Answered { outcome, pieces, .. }, question, n) = ask(c, asked, &[])?;
        if outcome.is_ok() {
            c.jobs.answered.entry(question).or_default().insert(n);
        }
        let id = c.jobs.streams_given;
        c.jobs.streams_given += 1;
        c.jobs.streams.insert(id, Stream { pieces: pieces.into(), outcome });
        Ok(Tokens { event_id: c.event_id.clone(), id })
    })
}

/// A stream of the run that opened it.
pub(crate) struct Tokens {
    event_id: String,
    id: u32,
}

impl Tokens {
    pub(crate) fn next(&self) -> Result<Option<Chunk>, ExecutorError> {
        self.stream(|stream| match stream.pieces.pop_front() {
            Some(text) => Ok(Some(Chunk { text, anew: false })),
            None => stream.outcome.clone().map(|_| None),
        })
    }

    pub(crate) fn finish(&self) -> Result<Completion, ExecutorError> {
        self.stream(|stream| stream.outcome.clone())
    }

    fn stream<T>(&self, f: impl FnOnce(&mut Stream) -> Result<T, ExecutorError>) -> Result<T, ExecutorError> {
        current(|c| match c.jobs.streams.get_mut(&self.id) {
            Some(stream) if c.event_id == self.event_id => f(stream),
            _ => Err(ExecutorError::Invalid("the stream is of another run".into())),
        })
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        current(|c| {
            if c.event_id == self.event_id {
                c.jobs.streams.remove(&self.id);
            }
        });
    }
}
