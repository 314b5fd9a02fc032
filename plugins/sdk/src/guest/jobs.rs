//! The functions of the executor in a guest.

use super::bindings::cofferdam::plugin::executor as host;
use crate::executor::{
    Chunk, Completion, ExecutorError, Format, Inference, Job, JobStatus, Phase, Priority, Sampling,
};

pub(crate) fn submit(job: &Job) -> Result<String, ExecutorError> {
    let agents = job.agents.iter().cloned().map(|agent| host::Agent {
        id: agent.id,
        role: agent.role,
        model: agent.model,
        prompt_template: agent.prompt_template,
    });
    let wire = host::Job {
        task_id: job.task_id.clone(),
        prompt: job.prompt.clone(),
        role: job.role.clone(),
        model: job.model.clone(),
        agents: agents.collect(),
        story_id: job.story_id.clone(),
        plan_id: job.plan_id.clone(),
        timeout_seconds: job.timeout_seconds,
        max_retries: job.max_retries,
        metadata: job.metadata.clone(),
        priority: priority(job.priority),
        sampling: sampling(&job.sampling),
    };
    host::submit(&wire).map_err(error)
}

pub(crate) fn job_status(job_id: &str) -> Result<JobStatus, ExecutorError> {
    let status = host::status(job_id).map_err(error)?;
    let phase = match status.phase {
        host::Phase::Unknown => Phase::Unknown,
        host::Phase::Queued => Phase::Queued,
        host::Phase::Running => Phase::Running,
        host::Phase::Done => Phase::Done,
        host::Phase::Failed => Phase::Failed,
        host::Phase::Cancelled => Phase::Cancelled,
    };
    Ok(JobStatus { phase, execution_id: status.execution_id, error: status.error })
}

pub(crate) fn cancel_job(job_id: &str) -> Result<(), ExecutorError> {
    host::cancel(job_id).map_err(error)
}

pub(crate) fn infer(inferences: &[Inference]) -> Vec<Result<Completion, ExecutorError>> {
    let wire: Vec<_> = inferences.iter().map(inference).collect();
    host::infer(&wire).into_iter().map(|answer| answer.map(completion).map_err(error)).collect()
}

pub(crate) fn tokens(asked: &Inference) -> Result<Tokens, ExecutorError> {
    host::tokens(&inference(asked)).map(Tokens).map_err(error)
}

/// The host's stream.
pub(crate) struct Tokens(host::TokenStream);

impl Tokens {
    pub(crate) fn next(&self) -> Result<Option<Chunk>, ExecutorError> {
        let chunk = self.0.next().map_err(error)?;
        Ok(chunk.map(|host::Chunk { text, anew }| Chunk { text, anew }))
    }

    pub(crate) fn finish(&self) -> Result<Completion, ExecutorError> {
        self.0.finish().map(completion).map_err(error)
    }
}

fn priority(priority: Priority) -> host::Priority {
    match priority {
        Priority::Low => host::Priority::Low,
        Priority::Normal => host::Priority::Normal,
        Priority::High => host::Priority::High,
    }
}

fn sampling(sampling: &Sampling) -> host::Sampling {
    host::Sampling {
        temperature: sampling.temperature,
        max_tokens: sampling.max_tokens,
        stop: sampling.stop.clone(),
        seed: sampling.seed,
        format: match &sampling.format {
            Format::Text => host::ResponseFormat::Text,
            Format::Json => host::ResponseFormat::Json,
            Format::Schema { name, schema, strict } => host::ResponseFormat::Schema(host::JsonSchema {
                name: name.clone(),
                schema: schema.clone(),
                strict: *strict,
            }),
        },
    }
}

fn inference(asked: &Inference) -> host::Inference {
    host::Inference {
        model: asked.model.clone(),
        system: asked.system.clone(),
        prompt: asked.prompt.clone(),
        sampling: sampling(&asked.sampling),
        priority: priority(asked.priority),
        timeout_seconds: asked.timeout_seconds,
    }
}

fn completion(answer: host::Completion) -> Completion {
    let host::Completion { text, reasoning, model, finish, tokens_in, tokens_out, cached } = answer;
    Completion { text, reasoning, model, finish, tokens_in, tokens_out, cached }
}

fn error(error: host::ExecutorError) -> ExecutorError {
    use host::ExecutorError as Wire;
    match error {
        Wire::Denied(text) => ExecutorError::Denied(text),
        Wire::Invalid(text) => ExecutorError::Invalid(text),
        Wire::Limit(text) => ExecutorError::Limit(text),
        Wire::NotConfigured(text) => ExecutorError::NotConfigured(text),
        Wire::Unavailable(text) => ExecutorError::Unavailable(text),
        Wire::Failed(host::JobFailure { kind, message }) => ExecutorError::Failed { kind, message },
    }
}
