//! What a job must have, and how large each part of it may be, whoever submits it.

use std::collections::BTreeSet;

use cofferdam_sandbox::{ExecutorError, Job};

use super::job::JOB_DAYS;
use crate::observe::text;

/// What stands for the executor's default model.
pub(crate) const DEFAULT_MODEL: &str = "default";
/// Of a job as it lies on the queue: with NATS's default limits an event's commit holds two of them.
pub(crate) const MAX_JOB: usize = 384 << 10;
const MAX_PROMPT: usize = 256 << 10;
/// Each answers, in a message of its own and all in one commit.
const MAX_AGENTS: usize = 16;
const MAX_TEMPLATE: usize = 32 << 10;
/// In an agent's template: where the prompt goes.
pub(crate) const PROMPT: &str = "{prompt}";
/// In days. One that waits until its message is gone, which is a day later, would end without a word.
const MAX_TIMEOUT_DAYS: u32 = 6;
/// Of an id, a role or the name of a model. They come back in every answer.
const MAX_NAME: usize = 512;
/// Metadata come back in every answer as well.
const MAX_METADATA: usize = 64;
const MAX_METADATA_BYTES: usize = 4 << 10;
/// Of a name, in a message.
const MAX_SHOWN: usize = 64;

/// What the parts of a job are called where it was written.
pub(crate) struct Names {
    task_id: &'static str,
    prompt: &'static str,
    model: &'static str,
    story_id: &'static str,
    plan_id: &'static str,
    template: &'static str,
    timeout: &'static str,
    metadata: &'static str,
}

impl Names {
    /// In the contract of plugins.
    pub(crate) const WIT: Self = Self {
        task_id: "task-id",
        prompt: "the prompt",
        model: "model",
        story_id: "story-id",
        plan_id: "plan-id",
        template: "prompt-template",
        timeout: "timeout-seconds",
        metadata: "the metadata",
    };
    /// In the fleet's own.
    pub(crate) const GRPC: Self = Self {
        task_id: "task_id",
        prompt: "task_description",
        model: "vllm_model",
        story_id: "constraints.story_id",
        plan_id: "constraints.plan_id",
        template: "prompt_template",
        timeout: "constraints.timeout_seconds",
        metadata: "constraints.metadata",
    };
}

/// Writes the name of the default model wherever it is meant.
pub(crate) fn resolve(job: &mut Job, default_model: &str) {
    let job_model = job.model.get_or_insert_with(|| DEFAULT_MODEL.to_owned());
    let agents = job.agents.iter_mut().map(|agent| &mut agent.model);
    for model in agents.chain([job_model]).filter(|model| *model == DEFAULT_MODEL) {
        default_model.clone_into(model);
    }
}

/// Is it a job, and of a bearable size?
pub(crate) fn check(job: &Job, names: &Names) -> Result<(), ExecutorError> {
    check_parts(job, names)?;
    for agent in &job.agents {
        let count = agent.prompt_template.matches(PROMPT).count();
        if count > 1 {
            return Err(ExecutorError::Invalid(format!(
                "the {} of agent {:?} has {PROMPT} {count} times; it is substituted once: leave one of them",
                names.template,
                text::excerpt(&agent.id, MAX_SHOWN)
            )));
        }
    }
    Ok(())
}

/// But for its templates: a question's is none.
pub(crate) fn check_parts(job: &Job, names: &Names) -> Result<(), ExecutorError> {
    let invalid = |why: String| Err(ExecutorError::Invalid(why));
    if job.task_id.trim().is_empty() {
        return invalid(format!("{} is empty; name the work, so that its result can be told", names.task_id));
    }
    if job.prompt.trim().is_empty() {
        return invalid(format!("{} is empty; say what the model is to do", names.prompt));
    }
    if job.agents.is_empty() {
        return invalid("a job needs at least one agent; name who answers in agents".into());
    }
    within(names.prompt, job.prompt.len(), MAX_PROMPT)?;
    let most = MAX_TIMEOUT_DAYS * 24 * 60 * 60;
    if job.timeout_seconds > most {
        return invalid(format!(
            "{} is {}; jobs are kept for {JOB_DAYS} days: give {most} at most, which are {MAX_TIMEOUT_DAYS}",
            names.timeout, job.timeout_seconds
        ));
    }
    let ids = [&job.story_id, &job.plan_id, &job.model];
    let named = [(names.task_id, &job.task_id), ("role", &job.role)].into_iter();
    let given = [names.story_id, names.plan_id, names.model].into_iter().zip(ids).filter_map(given);
    for (what, name) in named.chain(given) {
        within(what, name.len(), MAX_NAME)?;
    }
    if job.agents.len() > MAX_AGENTS {
        let count = job.agents.len();
        return Err(ExecutorError::Limit(format!("the job has {count} agents, more than {MAX_AGENTS}")));
    }
    let mut ids = BTreeSet::new();
    for agent in &job.agents {
        within("an agent's id", agent.id.len(), MAX_NAME)?;
        if !ids.insert(&agent.id) {
            return invalid(format!(
                "two agents have the id {:?}; give each its own, for of one id whoever collects answers counts one",
                text::excerpt(&agent.id, MAX_SHOWN)
            ));
        }
        within("an agent's role", agent.role.len(), MAX_NAME)?;
        within("an agent's model", agent.model.len(), MAX_NAME)?;
        within(&format!("an agent's {}", names.template), agent.prompt_template.len(), MAX_TEMPLATE)?;
    }
    if job.metadata.len() > MAX_METADATA {
        let count = job.metadata.len();
        return Err(ExecutorError::Limit(format!(
            "the job has {count} entries of metadata, more than {MAX_METADATA}"
        )));
    }
    let metadata = job.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    within(&format!("{}, keys and values,", names.metadata), metadata, MAX_METADATA_BYTES)
}

fn given<'a>((what, name): (&'a str, &'a Option<String>)) -> Option<(&'a str, &'a String)> {
    name.as_ref().map(|name| (what, name))
}

pub(crate) fn within(what: &str, size: usize, max: usize) -> Result<(), ExecutorError> {
    if size <= max {
        return Ok(());
    }
    Err(ExecutorError::Limit(format!("{what} has {size} bytes, more than {max}")))
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::{Agent, Priority, Sampling};

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
            priority: Priority::default(),
            sampling: Sampling::default(),
        }
    }

    #[test]
    fn a_job_without_what_it_is_about_is_invalid() {
        assert_eq!(check(&job(), &Names::WIT), Ok(()));
        for (what, job) in [
            ("task-id", Job { task_id: " ".into(), ..job() }),
            ("prompt", Job { prompt: "\n".into(), ..job() }),
            ("agent", Job { agents: Vec::new(), ..job() }),
            (
                "the prompt-template of agent \"a\" has {prompt} 2 times",
                Job {
                    agents: vec![Agent { prompt_template: "{prompt}{prompt}".into(), ..agent("") }],
                    ..job()
                },
            ),
            ("timeout-seconds is 518401", Job { timeout_seconds: 518_401, ..job() }),
            ("two agents have the id \"a\"", Job { agents: vec![agent("m"), agent("other")], ..job() }),
        ] {
            let Err(ExecutorError::Invalid(why)) = check(&job, &Names::WIT) else {
                panic!("{what} was let through")
            };
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
            let Err(ExecutorError::Limit(why)) = check(&job, &Names::WIT) else {
                panic!("let through: {said}")
            };
            assert!(why.contains(said), "{why}");
        }
        let agents = (0..MAX_AGENTS).map(|n| Agent { id: n.to_string(), ..agent("m") });
        let full = Job {
            prompt: "x".repeat(MAX_PROMPT),
            task_id: "t".repeat(MAX_NAME),
            agents: agents.collect(),
            metadata: vec![pair(64); MAX_METADATA],
            timeout_seconds: 518_400,
            ..job()
        };
        assert_eq!(check(&full, &Names::WIT), Ok(()));
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
