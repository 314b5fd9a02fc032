//! The executor as the fleet's clients have it: `fleet.ray_executor.v1.RayExecutorService`, served by whoever works the queue, against
//! an endpoint that does what it is told.

use std::{collections::BTreeSet, path::Path};

use fleet_proto::ray_executor::v1::{
    Agent, BacklogReviewTaskConstraints, ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest,
    ExecuteDeliberationResponse, GetActiveJobsRequest, GetDeliberationStatusRequest,
    GetDeliberationStatusResponse, GetStatusRequest, GetStatusResponse, JobInfo, TaskConstraints,
    ray_executor_service_client::RayExecutorServiceClient,
};
use futures_util::StreamExt;
use harness::{
    daemon::Daemon, endpoint::Endpoint, jobs::Queue, nats::Server, setup::Setup, wait::wait_for, way_in::body,
};
use serde_json::{Value, json};
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::both::{Begin, on_both_buses, on_local, on_nats};

on_both_buses! {
    contract_3_a_deliberation_is_submitted_worked_and_told,
    contract_3_each_agent_answers_once_and_the_deliberation_is_completed_when_all_have,
    contract_3_what_is_no_deliberation_is_refused_and_leads_to_nothing,
    contract_3_a_backlog_review_is_a_deliberation_of_its_ceremony,
    contract_3_a_deliberation_that_fails_says_why,
    contract_3_what_runs_and_how_the_executor_stands_is_told,
    an_answer_that_does_not_fit_twice_is_told_by_its_event,
    a_repeat_with_its_key_is_the_same_deliberation,
    a_key_that_was_stored_before_its_job_stands_for_it,
    whoever_stops_takes_no_more_and_tells_to_the_last,
}

const SERVICE: &str = "fleet.ray_executor.v1.RayExecutorService";
pub(crate) const MODEL: &str = "m";
const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";

/// An executor that is served, and the endpoint that it asks.
pub(crate) struct Stage {
    pub(crate) setup: Setup,
    pub(crate) executor: Daemon,
    pub(crate) endpoint: Endpoint,
    pub(crate) nats: Option<Server>,
}

impl Begin for Stage {
    async fn on(setup: Setup, nats: Option<Server>) -> Stage {
        let endpoint = Endpoint::start().await;
        let setup = setup
            .with("executor.backend", "queue")
            .with("executor.model", MODEL)
            .with("executor.endpoints.one.url", endpoint.url())
            .with("executor.grpc.listen", vec!["127.0.0.1:0"]);
        let executor = started(&setup, nats.is_some()).await;
        Stage { setup, executor, endpoint, nats }
    }
}

/// With NATS a process of its own works the queue; an embedded bus is nobody else's.
pub(crate) async fn started(setup: &Setup, on_nats: bool) -> Daemon {
    if on_nats { setup.start_worker().await } else { setup.start().await }
}

impl Stage {
    pub(crate) async fn again(&mut self, change: impl FnOnce(Setup) -> Setup) {
        let setup = std::mem::replace(&mut self.setup, Setup::local());
        self.setup = change(setup);
        self.executor = started(&self.setup, self.nats.is_some()).await;
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(&self.executor)
    }

    async fn events(&self, subject: &str, count: usize) -> Vec<Value> {
        self.executor.wait_stored(subject, count).await;
        self.executor.stored(subject).await.iter().map(|stored| payload(&body(stored))).collect()
    }

    async fn count(&self, filter: &str) -> usize {
        self.executor.stored(filter).await.len()
    }
}

/// Of an enveloped event.
fn payload(event: &Value) -> Value {
    if event["payload"].is_object() { event["payload"].clone() } else { event.clone() }
}

#[derive(Clone)]
pub(crate) struct Client(RayExecutorServiceClient<Channel>);

impl Client {
    pub(crate) fn of(executor: &Daemon) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", executor.executor())).unwrap();
        Client(RayExecutorServiceClient::new(endpoint.connect_lazy()))
    }

    pub(crate) async fn execute(
        &self,
        asked: ExecuteDeliberationRequest,
    ) -> Result<ExecuteDeliberationResponse, Status> {
        Ok(self.0.clone().execute_deliberation(asked).await?.into_inner())
    }

    async fn execute_with(
        &self,
        key: &str,
        asked: ExecuteDeliberationRequest,
    ) -> Result<ExecuteDeliberationResponse, Status> {
        let mut request = Request::new(asked);
        request.metadata_mut().insert("cofferdam-idempotency-key", key.parse().unwrap());
        Ok(self.0.clone().execute_deliberation(request).await?.into_inner())
    }

    async fn status(&self, id: &str) -> GetDeliberationStatusResponse {
        let request = GetDeliberationStatusRequest { deliberation_id: id.to_owned() };
        self.0.clone().get_deliberation_status(request).await.unwrap().into_inner()
    }

    /// Polls until it has ended.
    pub(crate) async fn ended(&self, id: &str) -> GetDeliberationStatusResponse {
        wait_for("the end of a deliberation", async || {
            let status = self.status(id).await;
            (status.status != "running").then_some(status)
        })
        .await
    }

    async fn stands(&self, include_stats: bool) -> GetStatusResponse {
        self.0.clone().get_status(GetStatusRequest { include_stats }).await.unwrap().into_inner()
    }

    async fn active(&self) -> Vec<JobInfo> {
        self.0.clone().get_active_jobs(GetActiveJobsRequest {}).await.unwrap().into_inner().jobs
    }
}

pub(crate) fn agent(id: &str) -> Agent {
    Agent { id: id.to_owned(), role: "DEV".to_owned(), ..Agent::default() }
}

pub(crate) fn asked(task_id: &str, prompt: &str, agents: &[&str]) -> ExecuteDeliberationRequest {
    ExecuteDeliberationRequest {
        task_id: task_id.to_owned(),
        task_description: prompt.to_owned(),
        role: "DEV".to_owned(),
        agents: agents.iter().map(|id| agent(id)).collect(),
        ..ExecuteDeliberationRequest::default()
    }
}

async fn contract_3_a_deliberation_is_submitted_worked_and_told(stage: Stage) {
    let client = stage.client();
    let constraints = TaskConstraints {
        story_id: "s-1".into(),
        plan_id: "p-1".into(),
        metadata: [
            ("attempt".to_owned(), "1".to_owned()),
            ("cofferdam-max-tokens".to_owned(), "77".to_owned()),
        ]
        .into(),
        ..TaskConstraints::default()
    };
    let request = ExecuteDeliberationRequest {
        constraints: Some(constraints),
        vllm_url: "http://elsewhere:8000".into(),
        ..asked("derive-p-1", "say it", &["a"])
    };
    let submitted = client.execute(request).await.unwrap();
    assert_eq!((submitted.task_id.as_str(), submitted.status.as_str()), ("derive-p-1", "submitted"));
    assert!(submitted.message.contains(&submitted.deliberation_id), "{submitted:?}");
    let id = submitted.deliberation_id;
    assert!(id.starts_with("clients_normal_"), "{id}");

    let status = client.ended(&id).await;
    assert_eq!((status.status.as_str(), status.error_message.as_str()), ("completed", ""));
    let result = status.result.expect("a result");
    assert_eq!((result.agent_id.as_str(), result.proposal.as_str()), ("a", "The answer to: say it"));
    assert_eq!(result.score, 1.0);
    let of = |name: &str| result.metadata.get(name).map(String::as_str);
    assert_eq!([of("attempt"), of("num_agents"), of("answers")], [Some("1"), Some("1"), Some("1")]);
    assert_eq!(
        [of("tokens_in"), of("tokens_out"), of("finish_reason")],
        [Some("11"), Some("7"), Some("stop")]
    );
    assert_eq!(of("model"), Some("served"));

    let [event] = stage.events(COMPLETED, 1).await.try_into().unwrap();
    assert_eq!([&event["task_id"], &event["agent_id"]], [&json!("derive-p-1"), &json!("a")]);
    assert_eq!([&event["num_agents"], &event["deliberation_id"]], [&json!(1), &json!(id)]);
    assert_eq!(event["constraints"]["plan_id"], "p-1");
    let seen = stage.endpoint.seen().await;
    assert_eq!((seen.requests, &seen.last["model"]), (1, &json!(MODEL)), "the operator's endpoint was asked");
    assert!(seen.last["max_tokens"] == 77 || seen.last["max_completion_tokens"] == 77, "{}", seen.last);
    assert_eq!(client.status("clients_normal_01234567_nobody").await.status, "not_found");
    assert_eq!(client.status("").await.status, "not_found");
    assert_eq!(client.status("*").await.status, "not_found");
    assert_eq!(client.status(&format!("{id}{}", "0".repeat(9000))).await.status, "not_found");
}

async fn contract_3_each_agent_answers_once_and_the_deliberation_is_completed_when_all_have(stage: Stage) {
    let client = stage.client();
    let mut request = asked("t-3", "!hold please", &["a", "b", "c"]);
    // Its own model goes before the request's, and that before the operator's.
    request.agents[2].model = MODEL.to_owned();
    request.vllm_model = MODEL.to_owned();
    let id = client.execute(request).await.unwrap().deliberation_id;
    stage.endpoint.sees("three requests", |seen| seen.open == 3).await;
    assert_eq!(client.status(&id).await.status, "running");
    wait_for("three active jobs", async || {
        let active = client.active().await;
        (active.len() == 3 && active.iter().all(|job| job.submission_id == id)).then_some(())
    })
    .await;
    stage.endpoint.release().await;
    let status = client.ended(&id).await;
    assert_eq!(status.status, "completed");
    let result = status.result.unwrap();
    assert_eq!(result.proposal, "The answer to: !hold please");
    assert!(["a", "b", "c"].contains(&result.agent_id.as_str()), "{result:?}");
    assert_eq!(result.metadata["num_agents"], "3");
    assert_eq!((result.metadata["answers"].as_str(), result.metadata["tokens_out"].as_str()), ("3", "21"));

    let events = stage.events(COMPLETED, 3).await;
    let agents: BTreeSet<&str> = events.iter().map(|event| event["agent_id"].as_str().unwrap()).collect();
    assert_eq!((events.len(), agents), (3, BTreeSet::from(["a", "b", "c"])));
    for event in &events {
        assert_eq!([&event["num_agents"], &event["deliberation_id"]], [&json!(3), &json!(id)], "{event}");
    }
    assert_eq!(stage.endpoint.seen().await.requests, 3);
}

async fn contract_3_what_is_no_deliberation_is_refused_and_leads_to_nothing(stage: Stage) {
    let client = stage.client();
    let bad = |constraints| ExecuteDeliberationRequest {
        constraints: Some(constraints),
        ..asked("t", "p", &["a"])
    };
    let metadata = |key: &str| [(key.to_owned(), "x".to_owned())].into();
    for (request, why) in [
        (asked("", "p", &["a"]), "task_id is empty"),
        (asked("t", "", &["a"]), "task_description is empty"),
        (asked("t", "p", &[]), "at least one agent"),
        (asked("t", &"x".repeat(300_000), &["a"]), "task_description has 300000 bytes"),
        (
            bad(TaskConstraints { timeout_seconds: -1, ..Default::default() }),
            "constraints.timeout_seconds is -1",
        ),
        (
            bad(TaskConstraints { metadata: metadata("cofferdam-heat"), ..Default::default() }),
            "cofferdam-heat",
        ),
        (
            bad(TaskConstraints { metadata: metadata("cofferdam-seed"), ..Default::default() }),
            "a whole number",
        ),
        (
            bad(TaskConstraints {
                metadata: [("cofferdam-stop".to_owned(), "x".repeat(257))].into(),
                ..Default::default()
            }),
            "257 bytes, more than 256",
        ),
        (
            bad(TaskConstraints { timeout_seconds: 518_401, ..Default::default() }),
            "constraints.timeout_seconds is 518401; jobs are kept for 7 days",
        ),
        (
            ExecuteDeliberationRequest {
                agents: vec![Agent { prompt_template: "{prompt}".repeat(4096), ..agent("a") }],
                ..asked("t", "p", &[])
            },
            "prompt_template of agent \"a\" has {prompt} 4096 times",
        ),
        (asked("t", "p", &["a", "b", "a"]), "two agents have the id \"a\""),
    ] {
        let status = client.execute(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    let review = ExecuteBacklogReviewDeliberationRequest {
        task_id: "derive-p".into(),
        task_description: "p".into(),
        agents: vec![agent("a")],
        ..Default::default()
    };
    let status = client.0.clone().execute_backlog_review_deliberation(review).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("ceremony-..:story-..:role-.."), "{status}");
    // Over what the port reads at all.
    let status = client.execute(asked("t", &"x".repeat(2 << 20), &["a"])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("more than 1048576 bytes, the executor's [executor.grpc] max-request"));
    assert_eq!(stage.count("cd.j.>").await, 0);
}

async fn contract_3_a_backlog_review_is_a_deliberation_of_its_ceremony(stage: Stage) {
    let client = stage.client();
    let task_id = "ceremony-1:story-2:role-QA";
    let review = ExecuteBacklogReviewDeliberationRequest {
        task_id: task_id.into(),
        task_description: "look at it".into(),
        role: "QA".into(),
        constraints: Some(BacklogReviewTaskConstraints { story_id: "story-2".into(), ..Default::default() }),
        agents: vec![agent("a")],
        ..Default::default()
    };
    let submitted = client.0.clone().execute_backlog_review_deliberation(review).await.unwrap().into_inner();
    assert_eq!(submitted.task_id, task_id);
    let status = client.ended(&submitted.deliberation_id).await;
    assert_eq!(status.result.unwrap().proposal, "The answer to: look at it");
    let [event] = stage.events(COMPLETED, 1).await.try_into().unwrap();
    assert_eq!([&event["task_id"], &event["constraints"]["story_id"]], [&json!(task_id), &json!("story-2")]);
    assert_eq!(event["constraints"]["plan_id"], Value::Null);
}

async fn contract_3_a_deliberation_that_fails_says_why(stage: Stage) {
    let client = stage.client();
    let id = client.execute(asked("t-1", "!401 please", &["a"])).await.unwrap().deliberation_id;
    let status = client.ended(&id).await;
    assert_eq!((status.status.as_str(), &status.result), ("failed", &None));
    assert!(status.error_message.starts_with("unauthorized: "), "{}", status.error_message);
    let [event] = stage.events(FAILED, 1).await.try_into().unwrap();
    assert_eq!([&event["task_id"], &event["error_type"]], [&json!("t-1"), &json!("unauthorized")]);
    assert_eq!([&event["num_agents"], &event["agent_id"]], [&json!(1), &json!("a")]);
    // Its time runs from when it was submitted, and nobody waits longer.
    let hurried = TaskConstraints { timeout_seconds: 1, ..TaskConstraints::default() };
    let request = ExecuteDeliberationRequest { constraints: Some(hurried), ..asked("t-2", "!hang", &["a"]) };
    let id = client.execute(request).await.unwrap().deliberation_id;
    let status = client.ended(&id).await;
    assert!(status.status == "failed" && status.error_message.starts_with("timeout: "), "{status:?}");
    assert_eq!((stage.count(COMPLETED).await, stage.count(FAILED).await), (0, 2));
}

async fn contract_3_what_runs_and_how_the_executor_stands_is_told(stage: Stage) {
    let client = stage.client();
    let stands = client.stands(false).await;
    assert_eq!((stands.status.as_str(), &stands.stats), ("healthy", &None));
    assert_eq!(client.active().await, []);
    let id = client.execute(asked("t-1", "!hold", &["a"])).await.unwrap().deliberation_id;
    stage.endpoint.sees("the request", |seen| seen.open == 1).await;
    let [job] =
        wait_for("an active job", async || <[JobInfo; 1]>::try_from(client.active().await).ok()).await;
    assert_eq!((job.job_id.as_str(), job.submission_id.as_str()), (id.as_str(), id.as_str()));
    assert_eq!((job.task_id.as_str(), job.role.as_str(), job.status.as_str()), ("t-1", "DEV", "RUNNING"));
    assert!(job.start_time.is_some_and(|at| at.seconds > 1_700_000_000) && job.end_time.is_none(), "{job:?}");
    assert!(!job.runtime.is_empty() && job.name.contains("t-1"), "{job:?}");
    let stats = client.stands(true).await.stats.expect("statistics");
    assert_eq!((stats.total_deliberations, stats.active_deliberations), (1, 1), "{stats:?}");
    stage.endpoint.release().await;
    client.ended(&id).await;
    let failed = client.execute(asked("t-2", "!401", &["a"])).await.unwrap().deliberation_id;
    client.ended(&failed).await;
    let stats = wait_for("both to be counted", async || {
        let stats = client.stands(true).await.stats.expect("statistics");
        (stats.completed_deliberations + stats.failed_deliberations == 2).then_some(stats)
    })
    .await;
    assert_eq!((stats.completed_deliberations, stats.failed_deliberations), (1, 1), "{stats:?}");
    assert_eq!((stats.total_deliberations, stats.active_deliberations), (2, 0), "{stats:?}");
    assert!(stats.average_execution_time_ms > 0.0, "{stats:?}");
    wait_for("nothing to be active", async || client.active().await.is_empty().then_some(())).await;
}

async fn an_answer_that_does_not_fit_twice_is_told_by_its_event(stage: Stage) {
    let client = stage.client();
    // Each takes two bytes in JSON. The event has the text twice, and once more in the record it would be too much.
    let prompt = "\"".repeat(180_000);
    let id = client.execute(asked("t-1", &prompt, &["a"])).await.unwrap().deliberation_id;
    let status = client.ended(&id).await;
    assert_eq!(status.status, "completed", "{}", status.error_message);
    let result = status.result.expect("a result");
    assert_eq!((result.agent_id.as_str(), result.proposal.as_str()), ("a", ""));
    assert!(result.metadata["proposal"].contains("agent.response.completed has it"), "{result:?}");
    assert_eq!(result.metadata["tokens_out"], "7");
    let [event] = stage.events(COMPLETED, 1).await.try_into().unwrap();
    assert_eq!(event["proposal"]["content"], format!("The answer to: {prompt}"));
    assert_eq!(stage.count(FAILED).await, 0);
}

async fn a_repeat_with_its_key_is_the_same_deliberation(stage: Stage) {
    let client = stage.client();
    let request = asked("t-1", "say it", &["a"]);
    let first = client.execute_with("k-1", request.clone()).await.unwrap();
    let repeats =
        futures_util::future::join_all((0..8).map(|_| client.execute_with("k-1", request.clone()))).await;
    for repeat in repeats {
        assert_eq!(repeat.unwrap(), first);
    }
    client.ended(&first.deliberation_id).await;
    assert_eq!(client.execute_with("k-1", request.clone()).await.unwrap(), first);

    let status = client.execute_with("k-1", asked("t-1", "say more", &["a"])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("was used for another request"), "{status}");
    // As a daemon would ask whose executor is its own queue.
    let status = client.execute_with(&first.deliberation_id, request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("in a circle"), "{status}");
    let other = client.execute_with("k-2", request.clone()).await.unwrap().deliberation_id;
    let [one, two] = [client.execute(request.clone()).await.unwrap(), client.execute(request).await.unwrap()];
    let ids = BTreeSet::from([first.deliberation_id, other, one.deliberation_id, two.deliberation_id]);
    assert_eq!(ids.len(), 4);
    stage.events(COMPLETED, 4).await;
    assert_eq!((stage.count("cd.j.>").await, stage.endpoint.seen().await.requests), (4, 4));
}

async fn a_key_that_was_stored_before_its_job_stands_for_it(mut stage: Stage) {
    stage.executor.stop().await;
    stage.again(|setup| setup.env("COFFERDAM_HALT", "key-of-a-job")).await;
    let request = asked("t-1", "say it", &["a"]);
    let client = stage.client();
    let (lost, asked) = (client.clone(), request.clone());
    let lost = tokio::spawn(async move { lost.execute_with("k-1", asked).await });
    stage.executor.says("halted between a key and its job").await;
    stage.executor.kill().await;
    assert!(lost.await.unwrap().is_err());
    // Whoever takes the repeat may have another model for those that name none: the job is where its key says.
    let elsewhere = |setup: Setup| {
        let endpoints = vec!["one"];
        setup
            .env("COFFERDAM_HALT", "")
            .with("executor.model", "another")
            .with(&format!("executor.models.{MODEL}.endpoints"), endpoints.clone())
            .with("executor.models.another.endpoints", endpoints)
    };
    stage.again(elsewhere).await;
    assert_eq!(stage.count("cd.j.>").await, 0);
    let client = stage.client();
    let first = client.execute_with("k-1", request.clone()).await.unwrap();
    assert_eq!(client.execute_with("k-1", request).await.unwrap(), first);
    let result = client.ended(&first.deliberation_id).await.result.expect("a result");
    assert_eq!(result.proposal, "The answer to: say it");
    assert_eq!(stage.endpoint.seen().await.last["model"], MODEL);
    assert_eq!(stage.count("cd.j.>").await, 1);
}

async fn whoever_stops_takes_no_more_and_tells_to_the_last(mut stage: Stage) {
    let client = stage.client();
    let channel =
        Channel::from_shared(format!("http://{}", stage.executor.executor())).unwrap().connect_lazy();
    let mut health = HealthClient::new(channel);
    let mut serving = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status
    };
    assert_eq!((serving("").await, serving(SERVICE).await), (1, 1));
    let id = client.execute(asked("t-1", "!hold", &["a"])).await.unwrap().deliberation_id;
    stage.endpoint.sees("the request", |seen| seen.open == 1).await;
    stage.executor.terminate();
    stage.executor.says("draining").await;
    let status = client.execute(asked("t-2", "say it", &["a"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("takes no more jobs"), "{status}");
    assert_eq!(client.status(&id).await.status, "running");
    assert_eq!(client.stands(false).await.status, "draining");
    assert_eq!((serving("").await, serving(SERVICE).await), (2, 2));
    stage.endpoint.release().await;
    assert!(stage.executor.end().await.success());
    stage.again(|setup| setup).await;
    assert_eq!(stage.client().status(&id).await.status, "completed");
    assert_eq!((stage.count(COMPLETED).await, stage.count("cd.j.>").await), (1, 1));
}

#[tokio::test]
async fn clients_that_name_models_at_will_come_to_an_end_with_it() {
    on_nats(async |stage: Stage| {
        let jetstream = async_nats::jetstream::new(stage.nats.as_ref().unwrap().client().await);
        let models: Vec<_> = (0..1000).map(|n| Queue::new("clients", &format!("m{n}"))).collect();
        futures_util::stream::iter(&models).for_each_concurrent(64, |queue| queue.open(&jetstream)).await;
        let execute = |model: &str| {
            let request = ExecuteDeliberationRequest { vllm_model: model.into(), ..asked("t", "p", &["a"]) };
            let client = stage.client();
            async move { client.execute(request).await }
        };
        let status = execute("another").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let said = "\"clients\" has 1000 queues, the limit, and the model \"another\" would need another";
        assert!(status.message().starts_with(said), "{status}");
        assert_eq!(execute("m7").await.unwrap().status, "submitted");
        assert_eq!((stage.count("cd.u.>").await, stage.count("cd.j.>").await), (1000, 1));
    })
    .await;
}

#[tokio::test]
async fn whichever_worker_is_asked_tells_of_all_of_them() {
    on_nats(async |mut stage: Stage| {
        stage.executor.stop().await;
        stage.again(|setup| setup.with("executor.concurrency", 2)).await;
        let second = stage.setup.start_worker_as_it_is().await;
        let clients = [stage.client(), Client::of(&second)];
        let request = asked("t-0", "!hold", &["a"]);
        let [one, two] = [
            clients[0].execute_with("k", request.clone()).await.unwrap(),
            clients[1].execute_with("k", request).await.unwrap(),
        ];
        assert_eq!(one, two);
        for (n, client) in clients.iter().cycle().take(3).enumerate() {
            client.execute(asked(&format!("t-{}", n + 1), "!hold", &["a"])).await.unwrap();
        }
        stage.endpoint.sees("the places of both", |seen| seen.open == 4).await;
        for client in &clients {
            let active = wait_for("what both work", async || {
                let active = client.active().await;
                (active.len() == 4).then_some(active)
            })
            .await;
            let tasks: BTreeSet<&str> = active.iter().map(|job| job.task_id.as_str()).collect();
            assert_eq!(tasks, BTreeSet::from(["t-0", "t-1", "t-2", "t-3"]));
            assert!(
                active.is_sorted_by_key(|job| job.start_time.map(|at| (at.seconds, at.nanos))),
                "{active:?}"
            );
        }
        stage.endpoint.release().await;
        for client in &clients {
            assert_eq!(client.ended(&one.deliberation_id).await.status, "completed");
            wait_for("the figures of both", async || {
                let stats = client.stands(true).await.stats.expect("statistics");
                (stats.completed_deliberations == 4 && stats.active_deliberations == 0).then_some(())
            })
            .await;
        }
        assert_eq!((stage.count("cd.j.>").await, stage.endpoint.seen().await.requests), (4, 4));
    })
    .await;
}

#[tokio::test]
async fn reflection_names_the_executor_alone() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    on_local(async |stage: Stage| {
        let channel =
            Channel::from_shared(format!("http://{}", stage.executor.executor())).unwrap().connect_lazy();
        let ask = MessageRequest::ListServices(String::new());
        let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let asked = futures_util::stream::iter([ask]);
        let told = ServerReflectionClient::new(channel).server_reflection_info(asked).await.unwrap();
        let told = told.into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(services)) = told.message_response else {
            panic!("{told:?}")
        };
        let names: BTreeSet<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, BTreeSet::from([SERVICE, "grpc.health.v1.Health"]));
    })
    .await;
}

#[tokio::test]
async fn with_tls_only_those_with_a_certificate_submit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/serving/certificates");
    on_local(async |mut stage: Stage| {
        stage.executor.stop().await;
        stage
            .again(|setup| {
                [("certificate", "host.pem"), ("key", "host.key"), ("client-ca", "ca.pem")].into_iter().fold(
                    setup,
                    |setup, (key, file)| {
                        setup.with(&format!("executor.grpc.{key}"), folder.join(file).to_str().unwrap())
                    },
                )
            })
            .await;
        let pem = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let execute = async |identity: Option<(&str, &str)>| {
            let mut tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(pem("ca.pem")))
                .domain_name("localhost");
            if let Some((certificate, key)) = identity {
                tls = tls.identity(Identity::from_pem(pem(certificate), pem(key)));
            }
            let endpoint = Channel::from_shared(format!("https://{}", stage.executor.executor())).unwrap();
            let channel =
                endpoint.tls_config(tls).unwrap().connect().await.map_err(|error| error.to_string())?;
            let client = Client(RayExecutorServiceClient::new(channel));
            client.execute(asked("t", "p", &["a"])).await.map_err(|status| status.to_string())
        };
        for stranger in [None, Some(("stranger.pem", "stranger.key"))] {
            execute(stranger).await.unwrap_err();
        }
        assert_eq!(execute(Some(("client.pem", "client.key"))).await.unwrap().status, "submitted");
        assert_eq!(stage.count("cd.j.>").await, 1);
    })
    .await;
}
