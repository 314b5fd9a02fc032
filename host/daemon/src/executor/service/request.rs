//! A request as a job: what the contract says of its fields, before any name of a model is known.

use std::collections::BTreeMap;

use cofferdam_sandbox::{Agent, ExecutorError, Job};
use fleet_proto::ray_executor::v1::{
    self as proto, ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest,
};
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::sampling;
use crate::executor::{
    job::TIMEOUT_SECONDS,
    limits::{Names, check},
};

/// What zero means, by the contract.
const MAX_RETRIES: u32 = 3;

/// A job that is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) job: Job,
    /// What is asked, hashed.
    pub(super) identity: [u8; 32],
}

impl Asked {
    pub(super) fn of(request: ExecuteDeliberationRequest) -> Result<Self, Status> {
        let identity = identity(&request);
        let constraints = request.constraints.unwrap_or_default();
        let job = Fields {
            task_id: request.task_id,
            prompt: request.task_description,
            role: request.role,
            agents: request.agents,
            model: request.vllm_model,
            story_id: constraints.story_id,
            plan_id: constraints.plan_id,
            timeout_seconds: constraints.timeout_seconds,
            max_retries: constraints.max_retries,
            metadata: constraints.metadata,
        }
        .job()?;
        Ok(Self { job, identity })
    }

    pub(super) fn of_review(request: ExecuteBacklogReviewDeliberationRequest) -> Result<Self, Status> {
        let identity = identity(&request);
        if !is_ceremony(&request.task_id) {
            return Err(Status::invalid_argument(format!(
                "task_id {:?} is not of the form ceremony-..:story-..:role-..; name the ceremony, the story and the role",
                excerpt(&request.task_id)
            )));
        }
        let constraints = request.constraints.unwrap_or_default();
        let job = Fields {
            task_id: request.task_id,
            prompt: request.task_description,
            role: request.role,
            agents: request.agents,
            model: request.vllm_model,
            story_id: constraints.story_id,
            plan_id: String::new(),
            timeout_seconds: constraints.timeout_seconds,
            max_retries: constraints.max_retries,
            metadata: constraints.metadata,
        }
        .job()?;
        Ok(Self { job, identity })
    }
}

/// What both requests have.
struct Fields {
    task_id: String,
    prompt: String,
    role: String,
    agents: Vec<proto::Agent>,
    model: String,
    story_id: String,
    plan_id: String,
    timeout_seconds: i32,
    max_retries: i32,
    metadata: BTreeMap<String, String>,
}

impl Fields {
    fn job(self) -> Result<Job, Status> {
        let timeout_seconds =
            whole("constraints.timeout_seconds", self.timeout_seconds, TIMEOUT_SECONDS, "seconds")?;
        let max_retries = whole("constraints.max_retries", self.max_retries, MAX_RETRIES, "tries")?;
        let (sampling, priority) = sampling::read(&self.metadata)?;
        let agent = |agent: proto::Agent| Agent {
            id: agent.id,
            role: agent.role,
            model: agent.model,
            prompt_template: agent.prompt_template,
        };
        let job = Job {
            task_id: self.task_id,
            prompt: self.prompt,
            role: self.role,
            model: given(self.model),
            agents: self.agents.into_iter().map(agent).collect(),
            story_id: given(self.story_id),
            plan_id: given(self.plan_id),
            timeout_seconds,
            max_retries,
            metadata: self.metadata.into_iter().collect(),
            priority,
            sampling,
        };
        check(&job, &Names::GRPC).map_err(refused)?;
        Ok(job)
    }
}

/// A job that is none, or is too large, stays so.
pub(super) fn refused(error: ExecutorError) -> Status {
    match error {
        ExecutorError::Invalid(why) | ExecutorError::Limit(why) => Status::invalid_argument(why),
        other => Status::internal(other.to_string()),
    }
}

fn whole(field: &str, number: i32, zero: u32, unit: &str) -> Result<u32, Status> {
    match u32::try_from(number) {
        Ok(0) => Ok(zero),
        Ok(number) => Ok(number),
        Err(_) => Err(Status::invalid_argument(format!(
            "{field} is {number}; give a number of {unit}, or 0 for {zero}"
        ))),
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Maps are sorted: equal requests are equal bytes.
fn identity(request: &impl Message) -> [u8; 32] {
    Sha256::digest(request.encode_to_vec()).into()
}

/// `ceremony-..:story-..:role-..`
fn is_ceremony(task_id: &str) -> bool {
    let parts: Vec<&str> = task_id.split(':').collect();
    let begin = ["ceremony-", "story-", "role-"];
    let named = |(part, begin): (&&str, &str)| part.len() > begin.len() && part.starts_with(begin);
    parts.len() == begin.len() && parts.iter().zip(begin).all(named)
}

fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::Priority;
    use fleet_proto::ray_executor::v1::{BacklogReviewTaskConstraints, TaskConstraints};
    use tonic::Code;

    use super::*;

    fn request() -> ExecuteDeliberationRequest {
        let agent = proto::Agent { id: "a".into(), role: "DEV".into(), ..proto::Agent::default() };
        ExecuteDeliberationRequest {
            task_id: "t-1".into(),
            task_description: "do it".into(),
            role: "DEV".into(),
            agents: vec![agent],
            ..ExecuteDeliberationRequest::default()
        }
    }

    fn constrained(constraints: TaskConstraints) -> ExecuteDeliberationRequest {
        ExecuteDeliberationRequest { constraints: Some(constraints), ..request() }
    }

    fn why(request: ExecuteDeliberationRequest) -> String {
        let status = Asked::of(request).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().to_owned()
    }

    #[test]
    fn contract_3_a_request_is_a_job_and_what_it_leaves_out_has_the_contracts_defaults() {
        let Asked { job, .. } = Asked::of(request()).unwrap();
        assert_eq!((job.timeout_seconds, job.max_retries, job.priority), (300, 3, Priority::Normal));
        assert_eq!((&job.model, &job.story_id, &job.plan_id), (&None, &None, &None));
        let full = constrained(TaskConstraints {
            story_id: "s".into(),
            plan_id: "p".into(),
            timeout_seconds: 7,
            max_retries: 1,
            metadata: BTreeMap::from([
                ("k".into(), "v".into()),
                ("cofferdam-priority".into(), "high".into()),
            ]),
        });
        let full =
            ExecuteDeliberationRequest { vllm_model: "m".into(), vllm_url: "http://gpu".into(), ..full };
        let Asked { job, .. } = Asked::of(full).unwrap();
        assert_eq!((job.timeout_seconds, job.max_retries, job.priority), (7, 1, Priority::High));
        assert_eq!(
            (job.model.as_deref(), job.story_id.as_deref(), job.plan_id.as_deref()),
            (Some("m"), Some("s"), Some("p"))
        );
        // They come back as they were given.
        assert_eq!(job.metadata.len(), 2);
    }

    #[test]
    fn contract_3_a_request_without_a_task_or_agents_is_an_invalid_argument_that_names_the_field() {
        for (field, request) in [
            ("task_id is empty", ExecuteDeliberationRequest { task_id: " ".into(), ..request() }),
            (
                "task_description is empty",
                ExecuteDeliberationRequest { task_description: String::new(), ..request() },
            ),
            ("at least one agent", ExecuteDeliberationRequest { agents: Vec::new(), ..request() }),
            (
                "task_description has 262145 bytes, more than 262144",
                ExecuteDeliberationRequest { task_description: "x".repeat(262_145), ..request() },
            ),
            (
                "constraints.timeout_seconds is -1; give a number of seconds, or 0 for 300",
                constrained(TaskConstraints { timeout_seconds: -1, ..TaskConstraints::default() }),
            ),
            (
                "constraints.timeout_seconds is 604801; jobs are kept for 7 days",
                constrained(TaskConstraints { timeout_seconds: 604_801, ..TaskConstraints::default() }),
            ),
            (
                "constraints.max_retries is -2; give a number of tries, or 0 for 3",
                constrained(TaskConstraints { max_retries: -2, ..TaskConstraints::default() }),
            ),
            (
                "constraints.story_id has 513 bytes",
                constrained(TaskConstraints { story_id: "s".repeat(513), ..TaskConstraints::default() }),
            ),
        ] {
            let why = why(request);
            assert!(why.contains(field), "{why}");
        }
    }

    #[test]
    fn contract_3_a_ceremony_names_its_story_and_role() {
        for (task_id, expected) in [
            ("ceremony-1:story-2:role-QA", true),
            ("ceremony-1:story-2", false),
            ("ceremony-1:story-2:role-QA:more", false),
            ("ceremony-:story-2:role-QA", false),
            ("ceremony-1:role-QA:story-2", false),
            ("derive-plan", false),
            ("", false),
        ] {
            assert_eq!(is_ceremony(task_id), expected, "{task_id:?}");
        }
        let constraints = BacklogReviewTaskConstraints { timeout_seconds: 9, ..Default::default() };
        let review = |task_id: &str| ExecuteBacklogReviewDeliberationRequest {
            task_id: task_id.into(),
            task_description: "look".into(),
            agents: request().agents,
            constraints: Some(constraints.clone()),
            ..Default::default()
        };
        let asked = Asked::of_review(review("ceremony-1:story-2:role-QA")).unwrap();
        assert_eq!((asked.job.timeout_seconds, asked.job.max_retries, asked.job.plan_id), (9, 3, None));
        let status = Asked::of_review(review(&"ü".repeat(100))).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("ceremony-..:story-..:role-.."), "{status}");
    }

    #[test]
    fn what_is_asked_is_told_apart() {
        let of = |request| Asked::of(request).unwrap().identity;
        assert_eq!(of(request()), of(request()));
        assert_ne!(of(request()), of(ExecuteDeliberationRequest { role: "QA".into(), ..request() }));
    }
}
