//! What a job and an inference must have, and how large their parts may be, as the host has it.

use serde_json::Value;

use crate::executor::{ExecutorError, Format, Inference, Job, Sampling};

/// Of one event.
pub(super) const JOBS: usize = 16;
pub(super) const CANCELS: usize = 256;
pub(super) const INFERENCES: usize = 256;
/// Of one call.
pub(super) const AT_ONCE: usize = 16;
/// Open at a time.
pub(super) const STREAMS: usize = 16;
const PROMPT: usize = 256 << 10;
const AGENTS: usize = 16;
const TEMPLATE: usize = 32 << 10;
const NAME: usize = 512;
const METADATA: usize = 64;
const METADATA_BYTES: usize = 4 << 10;
const STOPS: usize = 4;
const STOP: usize = 256;
const SCHEMA: usize = 32 << 10;
const SCHEMA_NAME: usize = 64;
const DAY: u32 = 24 * 60 * 60;
/// Of a job's time-out.
const DAYS: u32 = 6;
/// In a template: where the prompt goes.
const PLACE: &str = "{prompt}";

pub(super) fn job(job: &Job) -> Result<(), ExecutorError> {
    if job.task_id.trim().is_empty() {
        return invalid("the job has no task id");
    }
    if job.prompt.trim().is_empty() {
        return invalid(format!("the job {} has no prompt", job.task_id));
    }
    if job.agents.is_empty() {
        return invalid(format!("the job {} has no agent", job.task_id));
    }
    within("the prompt", job.prompt.len(), PROMPT)?;
    within("task-id", job.task_id.len(), NAME)?;
    within("role", job.role.len(), NAME)?;
    for (what, name) in [("story-id", &job.story_id), ("plan-id", &job.plan_id), ("model", &job.model)] {
        within(what, name.as_ref().map_or(0, String::len), NAME)?;
    }
    count("agents", job.agents.len(), AGENTS)?;
    for (n, agent) in job.agents.iter().enumerate() {
        if job.agents[..n].iter().any(|other| other.id == agent.id) {
            return invalid(format!("two agents of the job {} have the id {:?}", job.task_id, agent.id));
        }
        within("an agent's id", agent.id.len(), NAME)?;
        within("an agent's role", agent.role.len(), NAME)?;
        within("an agent's model", agent.model.len(), NAME)?;
        within("an agent's prompt-template", agent.prompt_template.len(), TEMPLATE)?;
        let places = agent.prompt_template.matches(PLACE).count();
        if places > 1 {
            return invalid(format!(
                "the prompt-template of agent {:?} has {PLACE} {places} times, and it is substituted once",
                agent.id
            ));
        }
    }
    if job.timeout_seconds > DAYS * DAY {
        return invalid(format!("timeout-seconds is {}, more than {DAYS} days", job.timeout_seconds));
    }
    count("entries of metadata", job.metadata.len(), METADATA)?;
    let metadata = job.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    within("the metadata", metadata, METADATA_BYTES)?;
    sampling(&job.sampling)
}

pub(super) fn inference(asked: &Inference) -> Result<(), ExecutorError> {
    if asked.prompt.trim().is_empty() {
        return invalid("the prompt is empty");
    }
    within("the prompt", asked.prompt.len(), PROMPT)?;
    within("system", asked.system.as_ref().map_or(0, String::len), TEMPLATE)?;
    within("model", asked.model.as_ref().map_or(0, String::len), NAME)?;
    if asked.timeout_seconds > DAY {
        return invalid(format!("timeout-seconds is {}, more than a day", asked.timeout_seconds));
    }
    sampling(&asked.sampling)
}

fn sampling(sampling: &Sampling) -> Result<(), ExecutorError> {
    if let Some(temperature) = sampling.temperature.filter(|t| !(0.0..=2.0).contains(t)) {
        return invalid(format!("temperature is {temperature}, not between 0 and 2"));
    }
    if sampling.max_tokens == Some(0) {
        return invalid("max-tokens is 0");
    }
    count("texts to stop at", sampling.stop.len(), STOPS)?;
    for stop in &sampling.stop {
        if stop.is_empty() {
            return invalid("a text to stop at is empty");
        }
        within("a text to stop at", stop.len(), STOP)?;
    }
    let Format::Schema { name, schema, .. } = &sampling.format else { return Ok(()) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > SCHEMA_NAME || !name.bytes().all(plain) {
        return invalid(format!("{name:?} is not the name of a schema"));
    }
    within("the schema", schema.len(), SCHEMA)?;
    match serde_json::from_str(schema) {
        Ok(Value::Object(_)) => Ok(()),
        _ => invalid(format!("the schema {name} is not a JSON object")),
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, ExecutorError> {
    Err(ExecutorError::Invalid(why.into()))
}

pub(super) fn count(what: &str, found: usize, max: usize) -> Result<(), ExecutorError> {
    if found <= max {
        Ok(())
    } else {
        Err(ExecutorError::Limit(format!("{found} {what}, {max} are allowed")))
    }
}

fn within(what: &str, size: usize, max: usize) -> Result<(), ExecutorError> {
    if size <= max {
        Ok(())
    } else {
        Err(ExecutorError::Limit(format!("{what} has {size} bytes, {max} are allowed")))
    }
}
