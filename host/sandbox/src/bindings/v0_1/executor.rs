//! The executor's part of version 0.1. What a guest holds of a stream of tokens is the number that the host calls it by.

use wasmtime::component::Resource;

use super::wit::cofferdam::plugin::executor as wit;
use crate::instance::State;
use crate::seam::{self, Answer, Call};

/// Whose handles a guest holds.
#[allow(unreachable_pub, reason = "generated code says again that it is")]
pub struct TokenStream;

type Outcome<T> = wasmtime::Result<Result<T, wit::ExecutorError>>;

impl wit::Host for State {
    async fn submit(&mut self, job: wit::Job) -> Outcome<String> {
        let agents = job.agents.into_iter().map(|agent| seam::Agent {
            id: agent.id,
            role: agent.role,
            model: agent.model,
            prompt_template: agent.prompt_template,
        });
        let call = Call::Submit(seam::Job {
            agents: agents.collect(),
            task_id: job.task_id,
            prompt: job.prompt,
            role: job.role,
            model: job.model,
            story_id: job.story_id,
            plan_id: job.plan_id,
            timeout_seconds: job.timeout_seconds,
            max_retries: job.max_retries,
            metadata: job.metadata,
            priority: priority(job.priority),
            sampling: sampling(job.sampling),
        });
        Ok(answer!(self, call, Submit).map_err(error))
    }

    async fn status(&mut self, job_id: String) -> Outcome<wit::JobStatus> {
        let status = answer!(self, Call::JobStatus(job_id), JobStatus);
        Ok(status.map_err(error).map(|status| wit::JobStatus {
            phase: match status.phase {
                seam::JobPhase::Unknown => wit::Phase::Unknown,
                seam::JobPhase::Queued => wit::Phase::Queued,
                seam::JobPhase::Running => wit::Phase::Running,
                seam::JobPhase::Done => wit::Phase::Done,
                seam::JobPhase::Failed => wit::Phase::Failed,
                seam::JobPhase::Cancelled => wit::Phase::Cancelled,
            },
            execution_id: status.execution_id,
            error: status.error,
        }))
    }

    async fn cancel(&mut self, job_id: String) -> Outcome<()> {
        Ok(answer!(self, Call::CancelJob(job_id), CancelJob).map_err(error))
    }

    async fn infer(
        &mut self,
        inferences: Vec<wit::Inference>,
    ) -> wasmtime::Result<Vec<Result<wit::Completion, wit::ExecutorError>>> {
        let call = Call::Infer(inferences.into_iter().map(inference).collect());
        let answers = answer!(self, call, Infer);
        Ok(answers.into_iter().map(|answer| answer.map(completion).map_err(error)).collect())
    }

    async fn tokens(&mut self, wanted: wit::Inference) -> Outcome<Resource<TokenStream>> {
        let answer = answer!(self, Call::Tokens(inference(wanted)), Tokens);
        if answer.is_ok() {
            self.hands_out_handle();
        }
        Ok(answer.map(Resource::new_own).map_err(error))
    }
}

impl wit::HostTokenStream for State {
    async fn next(&mut self, stream: Resource<TokenStream>) -> Outcome<Option<wit::Chunk>> {
        let chunk = answer!(self, Call::NextToken(stream.rep()), NextToken);
        let piece = |seam::Chunk { text, anew }| wit::Chunk { text, anew };
        Ok(chunk.map(|chunk| chunk.map(piece)).map_err(error))
    }

    async fn finish(&mut self, stream: Resource<TokenStream>) -> Outcome<wit::Completion> {
        let answer = answer!(self, Call::FinishTokens(stream.rep()), FinishTokens);
        Ok(answer.map(completion).map_err(error))
    }

    async fn drop(&mut self, stream: Resource<TokenStream>) -> wasmtime::Result<()> {
        self.takes_back_handle();
        match self.call(Call::DropTokens(stream.rep())).await? {
            Answer::Unit => Ok(()),
            other => Err(self.wrong_answer("Unit", &other)),
        }
    }
}

fn priority(priority: wit::Priority) -> seam::Priority {
    match priority {
        wit::Priority::Low => seam::Priority::Low,
        wit::Priority::Normal => seam::Priority::Normal,
        wit::Priority::High => seam::Priority::High,
    }
}

fn sampling(sampling: wit::Sampling) -> seam::Sampling {
    let wit::Sampling { temperature, max_tokens, stop, seed, format } = sampling;
    let format = match format {
        wit::ResponseFormat::Text => seam::Format::Text,
        wit::ResponseFormat::Json => seam::Format::Json,
        wit::ResponseFormat::Schema(wit::JsonSchema { name, schema, strict }) => {
            seam::Format::Schema { name, schema, strict }
        }
    };
    seam::Sampling { temperature, max_tokens, stop, seed, format }
}

fn inference(wanted: wit::Inference) -> seam::Inference {
    seam::Inference {
        model: wanted.model,
        system: wanted.system,
        prompt: wanted.prompt,
        sampling: sampling(wanted.sampling),
        priority: priority(wanted.priority),
        timeout_seconds: wanted.timeout_seconds,
    }
}

fn completion(completion: seam::Completion) -> wit::Completion {
    let seam::Completion { text, reasoning, model, finish, tokens_in, tokens_out, cached } = completion;
    wit::Completion { text, reasoning, model, finish, tokens_in, tokens_out, cached }
}

fn error(error: seam::ExecutorError) -> wit::ExecutorError {
    use seam::ExecutorError as Seam;
    use wit::ExecutorError as Wit;
    match error {
        Seam::Denied(message) => Wit::Denied(message),
        Seam::Invalid(message) => Wit::Invalid(message),
        Seam::Limit(message) => Wit::Limit(message),
        Seam::NotConfigured(message) => Wit::NotConfigured(message),
        Seam::Unavailable(message) => Wit::Unavailable(message),
        Seam::Failed { kind, message } => Wit::Failed(wit::JobFailure { kind, message }),
    }
}
