//! Inference as durable jobs: submitting is an effect, a message on the job queue; `crate::executor` works it.

use bytes::Bytes;
use cofferdam_sandbox::{ExecutorError, Job, JobPhase, JobStatus};

use super::Run;
use crate::{
    executor::{QueuedJob, job_header, job_subject, status},
    fault::Fault,
    grants::Kind,
};

/// What stands for the executor's default model.
const DEFAULT_MODEL: &str = "default";

/// Of one event.
const MAX_JOBS: usize = 16;
const MAX_PROMPT: usize = 256 << 10;
/// Each answers, in a message of its own and all in one commit.
const MAX_AGENTS: usize = 16;
const MAX_TEMPLATE: usize = 32 << 10;
/// Of an id, a role or the name of a model. They come back in every answer.
const MAX_NAME: usize = 512;
/// Metadata come back in every answer as well.
const MAX_METADATA: usize = 64;
const MAX_METADATA_BYTES: usize = 4 << 10;
/// Of a job as it lies on the queue: with NATS's default limits an event's commit holds two of them.
const MAX_JOB: usize = 384 << 10;
/// Subject and headers of a job's message, and what the bus adds to it.
const AROUND: usize = 1 << 10;

impl Run {
    pub(super) fn submit(&mut self, mut job: Job) -> Result<String, ExecutorError> {
        self.may_have_effects().map_err(ExecutorError::Denied)?;
        let Some(executor) = &self.services.executor else {
            return Err(ExecutorError::NotConfigured(
                "no executor; add [executor] with backend = \"offline\"".into(),
            ));
        };
        let default_model = executor.model.clone();
        self.models_granted(&job)?;
        check(&job)?;
        if self.jobs == MAX_JOBS {
            return Err(ExecutorError::Limit(format!("this event has submitted {MAX_JOBS} jobs, the limit")));
        }
        resolve(&mut job, &default_model);
        // Dots would make more tokens of the subject.
        let id = format!("{}-j{}", self.occasion.event_id.replace('.', "-"), self.jobs);
        let queued = QueuedJob { id: id.clone(), plugin: self.plugin.name.clone(), job };
        let body = serde_json::to_vec(&queued).map_err(|e| ExecutorError::Invalid(e.to_string()))?;
        within("the whole job, in JSON,", body.len(), MAX_JOB)?;
        let (size, room) = (body.len() + AROUND, self.room());
        if size > room {
            return Err(ExecutorError::Limit(format!(
                "a job of {size} bytes, and this event's commit has room for {room} more: its messages, timers, jobs \
                 and state are stored as one"
            )));
        }
        self.jobs += 1;
        self.effect(job_subject(&id), vec![job_header()], Bytes::from(body));
        Ok(id)
    }

    fn models_granted(&mut self, job: &Job) -> Result<(), ExecutorError> {
        let own = job.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let agents = job.agents.iter().map(|agent| agent.model.as_str()).filter(|model| !model.is_empty());
        for model in [own].into_iter().chain(agents) {
            self.granted(Kind::Executor, model)
                .map_err(|denial| ExecutorError::Denied(denial.to_string()))?;
        }
        Ok(())
    }

    pub(super) async fn job_status(&mut self, id: &str) -> Result<JobStatus, ExecutorError> {
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') || id.is_empty() {
            return Ok(JobStatus { phase: JobPhase::Unknown, execution_id: None, error: None });
        }
        status::read(&self.services.bus, id).await.map_err(|error| {
            self.blame.get_or_insert(Fault::Host);
            ExecutorError::Unavailable(error.to_string())
        })
    }
}

/// Writes the name of the default model wherever it is meant.
fn resolve(job: &mut Job, default_model: &str) {
    let job_model = job.model.get_or_insert_with(|| DEFAULT_MODEL.to_owned());
    let agents = job.agents.iter_mut().map(|agent| &mut agent.model);
    for model in agents.chain([job_model]).filter(|model| *model == DEFAULT_MODEL) {
        default_model.clone_into(model);
    }
}

/// Is it a job, and of a bearable size?
fn check(job: &Job) -> Result<(), ExecutorError> {
    let invalid = |why: &str| Err(ExecutorError::Invalid(why.into()));
    if job.task_id.trim().is_empty() {
        return invalid("task-id is empty; name the work, so that its result can be told");
    }
    if job.prompt.trim().is_empty() {
        return invalid("the prompt is empty");
    }
    if job.agents.is_empty() {
        return invalid("a job needs at least one agent");
    }
    within("the prompt", job.prompt.len(), MAX_PROMPT)?;
    let ids = [&job.story_id, &job.plan_id, &job.model];
    let names = [("task-id", &job.task_id), ("role", &job.role)].into_iter();
    for (what, name) in names.chain(["story-id", "plan-id", "model"].into_iter().zip(ids).filter_map(given)) {
        within(what, name.len(), MAX_NAME)?;
    }
    if job.agents.len() > MAX_AGENTS {
        let count = job.agents.len();
        return Err(ExecutorError::Limit(format!("the job has {count} agents, more than {MAX_AGENTS}")));
    }
    for agent in &job.agents {
        within("an agent's id", agent.id.len(), MAX_NAME)?;
        within("an agent's role", agent.role.len(), MAX_NAME)?;
        within("an agent's model", agent.model.len(), MAX_NAME)?;
        within("an agent's prompt-template", agent.prompt_template.len(), MAX_TEMPLATE)?;
    }
    if job.metadata.len() > MAX_METADATA {
        let count = job.metadata.len();
        return Err(ExecutorError::Limit(format!(
            "the job has {count} entries of metadata, more than {MAX_METADATA}"
        )));
    }
    let metadata = job.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    within("the metadata, keys and values,", metadata, MAX_METADATA_BYTES)
}

fn given<'a>((what, name): (&'a str, &'a Option<String>)) -> Option<(&'a str, &'a String)> {
    name.as_ref().map(|name| (what, name))
}

fn within(what: &str, size: usize, max: usize) -> Result<(), ExecutorError> {
    if size <= max {
        return Ok(());
    }
    Err(ExecutorError::Limit(format!("{what} has {size} bytes, more than {max}")))
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::Agent;

    use super::*;

    fn agent(model: &str) -> Agent {
        Agent { id: "a".into(), role: "DEV".into(), model: model.into(), prompt_template: String::new() }
    }

    fn job() -> Job {
        Job {
            task_id: "t".into(),
            prompt: "do it".into(),
            role: "DEV".into(),
            model: None,
            agents: vec![agent("")],
            story_id: None,
            plan_id: None,
            timeout_seconds: 0,
            max_retries: 0,
            metadata: Vec::new(),
        }
    }

    #[test]
    fn a_job_without_what_it_is_about_is_invalid() {
        assert_eq!(check(&job()), Ok(()));
        for (what, job) in [
            ("task-id", Job { task_id: " ".into(), ..job() }),
            ("prompt", Job { prompt: "\n".into(), ..job() }),
            ("agent", Job { agents: Vec::new(), ..job() }),
        ] {
            let Err(ExecutorError::Invalid(why)) = check(&job) else { panic!("{what} was let through") };
            assert!(why.contains(what), "{why}");
        }
    }

    #[test]
    fn every_part_of_a_job_has_a_limit() {
        let long = |max: usize| "x".repeat(max + 1);
        let with = |agent: Agent| Job { agents: vec![agent], ..job() };
        let pair = |size: usize| ("k".to_owned(), "v".repeat(size - 1));
        for (said, job) in [
            ("the prompt has 262145 bytes, more than 262144", Job { prompt: long(MAX_PROMPT), ..job() }),
            ("task-id has 513 bytes, more than 512", Job { task_id: long(512), ..job() }),
            ("role has 513 bytes", Job { role: long(512), ..job() }),
            ("story-id has 513 bytes", Job { story_id: Some(long(512)), ..job() }),
            ("plan-id has 513 bytes", Job { plan_id: Some(long(512)), ..job() }),
            ("model has 513 bytes", Job { model: Some(long(512)), ..job() }),
            ("17 agents, more than 16", Job { agents: vec![agent(""); 17], ..job() }),
            ("an agent's id has 513", with(Agent { id: long(512), ..agent("") })),
            ("an agent's role has 513", with(Agent { role: long(512), ..agent("") })),
            ("an agent's model has 513", with(agent(&long(512)))),
            (
                "an agent's prompt-template has 32769",
                with(Agent { prompt_template: long(MAX_TEMPLATE), ..agent("") }),
            ),
            ("65 entries of metadata, more than 64", Job { metadata: vec![pair(1); 65], ..job() }),
            ("has 4097 bytes, more than 4096", Job { metadata: vec![pair(4000), pair(97)], ..job() }),
        ] {
            let Err(ExecutorError::Limit(why)) = check(&job) else { panic!("let through: {said}") };
            assert!(why.contains(said), "{why}");
        }
        let full = Job {
            prompt: "x".repeat(MAX_PROMPT),
            task_id: "t".repeat(MAX_NAME),
            agents: vec![agent("m"); MAX_AGENTS],
            metadata: vec![pair(64); MAX_METADATA],
            ..job()
        };
        assert_eq!(check(&full), Ok(()));
    }

    #[test]
    fn the_default_model_is_named_wherever_it_is_meant() {
        let mut job = Job { agents: vec![agent("default"), agent(""), agent("other")], ..job() };
        for model in [None, Some("default".to_owned())] {
            job.model = model;
            resolve(&mut job, "m");
            assert_eq!(job.model.as_deref(), Some("m"));
        }
        let models: Vec<&str> = job.agents.iter().map(|a| a.model.as_str()).collect();
        assert_eq!(models, ["m", "", "other"]);
        job.model = Some("mine".into());
        resolve(&mut job, "m");
        assert_eq!(job.model.as_deref(), Some("mine"));
    }
}
