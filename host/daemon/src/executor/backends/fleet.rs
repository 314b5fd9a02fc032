//! The fleet's own executor, `fleet.ray_executor.v1`: it accepts a job and answers later, as events. For whoever waits for the
//! answer it is asked what became of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use cofferdam_sandbox::{Format, Job, Priority, Sampling};
use fleet_proto::ray_executor::v1::{
    Agent, ExecuteDeliberationRequest, ExecuteDeliberationResponse, GetDeliberationStatusRequest,
    GetDeliberationStatusResponse, TaskConstraints,
};
use prost::{DecodeError, Message as _};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::{Answered, Failed, Task, Worked};
use crate::{
    capabilities::{Outgoing, Services, Within},
    config::ExecutorConfig,
    executor::job::{self, AnswerTo},
    observe::text::excerpt,
};

const METHOD: &str = "fleet.ray_executor.v1.RayExecutorService/ExecuteDeliberation";
const STATUS: &str = "fleet.ray_executor.v1.RayExecutorService/GetDeliberationStatus";
/// Between two questions what became of a job; doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// So often it may say that it does not know what it accepted: it may not have written it down yet.
const FORGOTTEN: u32 = 3;
/// Of the executor's own words, in bytes.
const MAX_TOLD: usize = 2 << 10;

pub(super) async fn work(
    services: &Services,
    upstream: &str,
    config: &ExecutorConfig,
    task: &Task<'_>,
) -> Worked {
    let fleet = Fleet { services, upstream, task };
    let request = Bytes::from(request(config, task).encode_to_vec());
    let accepted = match fleet.call(METHOD, request).await {
        Ok(answer) => answer,
        // The executor may have taken the job all the same, and its answer got lost: the next try says so by its key.
        Err(status) if is_transient(status.code()) => {
            return Worked::Later { error: told(upstream, &status), kind: "unavailable", after: None };
        }
        Err(status) => return Worked::Failed(Failed::new("refused", told(upstream, &status))),
    };
    let accepted = match ExecuteDeliberationResponse::decode(accepted) {
        Ok(accepted) => accepted,
        Err(error) => return Worked::Failed(unreadable(upstream, &error)),
    };
    tracing::info!(
        job = task.queued.id,
        task_id = task.queued.job.task_id,
        deliberation_id = accepted.deliberation_id,
        status = accepted.status,
        "the executor accepted the job"
    );
    if task.queued.answer == AnswerTo::Fleet {
        return Worked::Accepted { execution_id: accepted.deliberation_id };
    }
    tokio::select! {
        biased;
        () = task.cancelled.cancelled() => {
            let error = format!("it was cancelled here; {upstream} has no call for that and may go on with it");
            Worked::Failed(Failed::new("cancelled", error))
        }
        worked = fleet.follow(&accepted.deliberation_id) => worked,
    }
}

/// The executor, as one job sees it.
struct Fleet<'a> {
    services: &'a Services,
    upstream: &'a str,
    task: &'a Task<'a>,
}

impl Fleet<'_> {
    async fn call(&self, method: &str, request: Bytes) -> Result<Bytes, Status> {
        let outgoing = Outgoing {
            upstream: self.upstream,
            method,
            request,
            timeout: None,
            metadata: &[],
            idempotency_key: &self.task.queued.id,
            traceparent: self.task.trace,
            fence: None,
            // Whoever asked for the job may wait for it.
            within: Within::default().deeper(),
        };
        self.services.upstreams.call(outgoing).await
    }

    /// Asks what became of it until something did.
    async fn follow(&self, deliberation: &str) -> Worked {
        let upstream = self.upstream;
        let request = GetDeliberationStatusRequest { deliberation_id: deliberation.to_owned() };
        let request = Bytes::from(request.encode_to_vec());
        let (mut pause, mut forgotten) = (FIRST_PAUSE, 0);
        let mut last = String::new();
        loop {
            let next = Instant::now() + pause;
            if next >= self.task.deadline {
                let error = format!(
                    "no answer of {upstream} to the deliberation {deliberation:?} by the job's deadline{last}; give it more time"
                );
                return Worked::Failed(Failed::new("timeout", error));
            }
            sleep_until(next).await;
            pause = (pause * 2).min(LAST_PAUSE);
            let answer = match self.call(STATUS, request.clone()).await {
                Ok(answer) => answer,
                // It was accepted: to ask what became of it costs nothing.
                Err(status) if is_transient(status.code()) => {
                    last = format!(" (last, {})", told(upstream, &status));
                    continue;
                }
                Err(status) => return Worked::Failed(Failed::new("refused", told(upstream, &status))),
            };
            let found = match GetDeliberationStatusResponse::decode(answer) {
                Ok(found) => found,
                Err(error) => return Worked::Failed(unreadable(upstream, &error)),
            };
            match found.status.to_ascii_lowercase().as_str() {
                "completed" => return answered(upstream, self.task, found),
                "failed" => {
                    let said = excerpt(&found.error_message, MAX_TOLD);
                    let failed = Failed::new("failed", format!("{upstream} worked it and failed: {said}"));
                    return Worked::Failed(Failed { told: true, ..failed });
                }
                "not_found" if forgotten == FORGOTTEN => {
                    let error = format!(
                        "{upstream} accepted it as {deliberation:?} and knows nothing of that any more"
                    );
                    return Worked::Failed(Failed::new("protocol", error));
                }
                "not_found" => forgotten += 1,
                _ => forgotten = 0,
            }
        }
    }
}

fn answered(upstream: &str, task: &Task<'_>, found: GetDeliberationStatusResponse) -> Worked {
    let result = found.result.unwrap_or_default();
    if result.proposal.is_empty() {
        let error = format!("{upstream} completed it with an empty proposal");
        return Worked::Failed(Failed { told: true, ..Failed::new("empty", error) });
    }
    let number = |key: &str| result.metadata.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    let (tokens_in, tokens_out) = (number("tokens_in"), number("tokens_out"));
    if task.queued.job.sampling.format != Format::Text
        && let Err(error) = serde_json::from_str::<IgnoredAny>(result.proposal.trim())
    {
        let said = excerpt(&result.proposal, MAX_TOLD);
        let error = format!(
            "{upstream} was asked for JSON, and its proposal is none ({error}): {said:?}; see whether it knows \
             cofferdam-format, or ask for JSON in the prompt"
        );
        return Worked::Failed(Failed {
            tokens_in,
            tokens_out,
            told: true,
            ..Failed::new("invalid_schema", error)
        });
    }
    Worked::Answered(Answered {
        model: result.metadata.get("model").cloned().unwrap_or_else(|| task.model.to_owned()),
        tokens_in,
        tokens_out,
        text: result.proposal,
        reasoning: result.reasoning,
        told: true,
        ..Answered::default()
    })
}

fn unreadable(upstream: &str, error: &DecodeError) -> Failed {
    Failed::new("protocol", format!("{upstream}'s answer can't be read: {error}"))
}

fn request(config: &ExecutorConfig, task: &Task<'_>) -> ExecuteDeliberationRequest {
    let job = &task.queued.job;
    let model = job.model.clone().unwrap_or_else(|| config.model.clone());
    let agents = job.agents.iter().map(|agent| Agent {
        id: agent.id.clone(),
        role: agent.role.clone(),
        model: if agent.model.is_empty() { model.clone() } else { agent.model.clone() },
        prompt_template: agent.prompt_template.clone(),
    });
    ExecuteDeliberationRequest {
        task_id: job.task_id.clone(),
        task_description: task.prompt.to_owned(),
        role: job.role.clone(),
        constraints: Some(TaskConstraints {
            story_id: job.story_id.clone().unwrap_or_default(),
            plan_id: job.plan_id.clone().unwrap_or_default(),
            timeout_seconds: job.timeout_seconds as i32,
            max_retries: job.max_retries as i32,
            metadata: metadata(job),
        }),
        agents: agents.collect(),
        vllm_url: config.vllm_url.reveal().to_owned(),
        vllm_model: model.clone(),
    }
}

/// The job's own, and how the model is to answer where that is said elsewhere in the job. The fleet's own executor has no names
/// for the last ones: they are what another executor of ours reads, and comes to nothing at the fleet's.
fn metadata(job: &Job) -> BTreeMap<String, String> {
    let mut metadata: BTreeMap<String, String> = job.metadata.iter().cloned().collect();
    let Sampling { temperature, max_tokens, stop, seed, format } = &job.sampling;
    let typed = [
        ("temperature", temperature.map(|temperature| temperature.to_string())),
        ("max_tokens", max_tokens.map(|tokens| tokens.to_string())),
        ("cofferdam-stop", (!stop.is_empty()).then(|| Value::from(stop.as_slice()).to_string())),
        ("cofferdam-seed", seed.map(|seed| seed.to_string())),
        ("cofferdam-format", format_of(format)),
        (
            "cofferdam-priority",
            (job.priority != Priority::Normal).then(|| job::word(job.priority).to_owned()),
        ),
    ];
    for (key, value) in typed {
        if let Some(value) = value {
            metadata.entry(key.to_owned()).or_insert(value);
        }
    }
    metadata
}

/// A schema goes by its title there.
fn format_of(format: &Format) -> Option<String> {
    match format {
        Format::Text => None,
        Format::Json => Some("json".to_owned()),
        Format::Schema { name, schema, .. } => Some(match serde_json::from_str(schema) {
            Ok(Value::Object(mut fields)) if !fields.contains_key("title") => {
                fields.insert("title".to_owned(), Value::from(name.as_str()));
                Value::Object(fields).to_string()
            }
            _ => schema.clone(),
        }),
    }
}

fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
    )
}

fn told(upstream: &str, status: &tonic::Status) -> String {
    let unknown = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => " (whether it took the job is unknown)",
        _ => "",
    };
    format!("{upstream} answered {:?}: {}{unknown}", status.code(), excerpt(status.message(), MAX_TOLD))
}

#[cfg(test)]
mod tests {
    use fleet_proto::ray_executor::v1::DeliberationResult;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::executor::{service, testing};

    #[test]
    fn sampling_is_handed_on_where_the_metadata_does_not_say_it() {
        let mut queued = testing::job(&["a"]);
        queued.job.sampling.temperature = Some(0.25);
        queued.job.sampling.max_tokens = Some(64);
        queued.job.metadata = vec![("max_tokens".into(), "99".into()), ("attempt".into(), "2".into())];
        let told: Vec<_> = metadata(&queued.job).into_iter().collect();
        let wanted = [("attempt", "2"), ("max_tokens", "99"), ("temperature", "0.25")];
        assert_eq!(told, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn another_executor_of_ours_reads_all_that_is_said_of_an_answer() {
        let schema =
            Format::Schema { name: "task".into(), schema: r#"{"type":"object"}"#.into(), strict: true };
        for (format, titled) in [
            (Format::Text, Format::Text),
            (Format::Json, Format::Json),
            (
                schema,
                Format::Schema {
                    name: "task".into(),
                    schema: r#"{"title":"task","type":"object"}"#.into(),
                    strict: true,
                },
            ),
        ] {
            let mut queued = testing::job(&["a"]);
            let (stop, seed) = (vec!["END".to_owned(), "[".to_owned()], Some(-7));
            queued.job.sampling = Sampling { stop, seed, format, ..Sampling::default() };
            queued.job.priority = Priority::High;
            let (sampling, priority) = service::sampling::read(&metadata(&queued.job)).unwrap();
            assert_eq!(sampling, Sampling { format: titled, ..queued.job.sampling });
            assert_eq!(priority, Priority::High);
        }
        assert!(metadata(&testing::job(&["a"]).job).is_empty(), "what is as ever is not said");
    }

    #[test]
    fn a_proposal_that_should_be_json_and_is_none_is_no_answer() {
        let worked = |format: Format, proposal: &str| {
            let mut queued = testing::job(&["a"]);
            queued.job.sampling.format = format;
            let agent = queued.job.agents[0].clone();
            let task = Task {
                queued: &queued,
                prompt: "p",
                agent: &agent,
                model: "m",
                attempt: 1,
                deadline: Instant::now(),
                trace: "",
                cancelled: CancellationToken::new(),
            };
            let metadata = [("tokens_in", "3"), ("tokens_out", "4")];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let result = DeliberationResult { proposal: proposal.into(), metadata, ..Default::default() };
            let found = GetDeliberationStatusResponse { result: Some(result), ..Default::default() };
            match answered("ray", &task, found) {
                Worked::Answered(answered) => Ok(answered.text),
                Worked::Failed(failed) => Err(failed),
                _ => panic!("neither an answer nor a failure"),
            }
        };
        assert_eq!(worked(Format::Text, "Here you are"), Ok("Here you are".to_owned()));
        assert_eq!(worked(Format::Json, " {\"a\": 1}\n"), Ok(" {\"a\": 1}\n".to_owned()));
        let schema = Format::Schema { name: "s".into(), schema: "{}".into(), strict: true };
        for format in [Format::Json, schema] {
            let failed = worked(format, "Here you are: {}").unwrap_err();
            assert_eq!((failed.kind, failed.tokens_in, failed.tokens_out), ("invalid_schema", 3, 4));
            assert!(failed.told, "its workers have told the fleet of it");
            let wanted = "ray was asked for JSON, and its proposal is none (";
            assert!(
                failed.error.starts_with(wanted) && failed.error.contains("Here you are"),
                "{}",
                failed.error
            );
        }
    }

    #[test]
    fn a_call_whose_outcome_is_unknown_is_tried_again_and_told_as_such() {
        assert!(is_transient(Code::DeadlineExceeded) && !is_transient(Code::InvalidArgument));
        let late = told("ray", &tonic::Status::deadline_exceeded("no answer within 5s"));
        assert_eq!(
            late,
            "ray answered DeadlineExceeded: no answer within 5s (whether it took the job is unknown)"
        );
        let refused = told("ray", &tonic::Status::invalid_argument("no such role"));
        assert_eq!(refused, "ray answered InvalidArgument: no such role");
    }
}
