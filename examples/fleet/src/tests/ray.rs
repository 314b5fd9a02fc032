//! The Ray Executor's answers to its callers, and its events.

use std::time::Duration;

use fleet_proto::ray_executor::v1::{
    Agent, ExecuteBacklogReviewDeliberationRequest, ExecuteDeliberationRequest, GetActiveJobsRequest,
    GetDeliberationStatusRequest, GetStatusRequest, ray_executor_service_client::RayExecutorServiceClient,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, transport::Channel};

use super::{
    fake::{self, until},
    keyed, serve,
};
use crate::{
    bus::{self, OnBus},
    cli::Refusal,
    events::Style,
    ray,
};

/// A Ray Executor whose agents think for long, so that nothing is published.
async fn start(refuse: Option<Refusal>) -> (RayExecutorServiceClient<Channel>, DropGuard) {
    // Nobody is there, and nobody is asked.
    start_on("http://127.0.0.1:1", Duration::from_secs(600), refuse).await
}

async fn start_on(
    url: &str,
    delay: Duration,
    refuse: Option<Refusal>,
) -> (RayExecutorServiceClient<Channel>, DropGuard) {
    let shutdown = CancellationToken::new();
    let on = OnBus { cofferdam: Some(url.to_owned()), ..OnBus::default() };
    let bus = bus::connect(&on, "test").await.unwrap();
    let worker = ray::Worker {
        bus,
        envelope: Style::Mirror,
        answer: "text".into(),
        delay,
        fail: false,
        book: ray::Book::default(),
        shutdown: shutdown.clone(),
    };
    let channel = serve(ray::routes(worker, refuse).await.unwrap(), &shutdown).await;
    (RayExecutorServiceClient::new(channel), shutdown.drop_guard())
}

fn agent() -> Agent {
    Agent { id: "task-deriver".to_owned(), role: "SYSTEM".to_owned(), ..Default::default() }
}

fn derive(task_id: &str) -> ExecuteDeliberationRequest {
    ExecuteDeliberationRequest { task_id: task_id.to_owned(), agents: vec![agent()], ..Default::default() }
}

#[tokio::test]
async fn a_deliberation_runs_and_can_be_asked_after() {
    let (mut ray, _running) = start(None).await;
    let taken = ray.execute_deliberation(derive("derive-p")).await.unwrap().into_inner();
    assert_eq!((taken.task_id.as_str(), taken.status.as_str()), ("derive-p", "submitted"));
    let request = GetDeliberationStatusRequest { deliberation_id: taken.deliberation_id.clone() };
    assert_eq!(ray.get_deliberation_status(request).await.unwrap().into_inner().status, "running");
    let jobs = ray.get_active_jobs(GetActiveJobsRequest {}).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].job_id.as_str(), jobs[0].task_id.as_str()),
        (taken.deliberation_id.as_str(), "derive-p")
    );
    assert!(jobs[0].start_time.is_some() && jobs[0].end_time.is_none());
    let status = ray.get_status(GetStatusRequest { include_stats: true }).await.unwrap().into_inner();
    let stats = status.stats.unwrap();
    assert_eq!((stats.total_deliberations, stats.active_deliberations), (1, 1));
    let status = ray.get_status(GetStatusRequest { include_stats: false }).await.unwrap().into_inner();
    assert!(status.stats.is_none());
}

#[tokio::test]
async fn an_unknown_deliberation_is_a_status_not_an_error() {
    let (mut ray, _running) = start(None).await;
    let request = GetDeliberationStatusRequest { deliberation_id: "nope".to_owned() };
    assert_eq!(ray.get_deliberation_status(request).await.unwrap().into_inner().status, "not_found");
}

#[tokio::test]
async fn a_task_without_id_or_agents_is_invalid() {
    let (mut ray, _running) = start(None).await;
    let mut alone = derive("derive-p");
    alone.agents.clear();
    for bad in [derive(""), alone] {
        assert_eq!(ray.execute_deliberation(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_backlog_review_needs_the_id_of_a_ceremony() {
    let (mut ray, _running) = start(None).await;
    for (task_id, expected) in
        [("derive-p", Err(Code::InvalidArgument)), ("ceremony-1:story-2:role-QA", Ok(()))]
    {
        let request = ExecuteBacklogReviewDeliberationRequest {
            task_id: task_id.to_owned(),
            agents: vec![agent()],
            ..Default::default()
        };
        let outcome = ray.execute_backlog_review_deliberation(request).await;
        assert_eq!(outcome.map(drop).map_err(|status| status.code()), expected, "{task_id}");
    }
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_deliberation() {
    let (mut ray, _running) = start(None).await;
    let first = ray.execute_deliberation(keyed("k", derive("derive-p"))).await.unwrap().into_inner();
    let again = ray.execute_deliberation(keyed("k", derive("derive-p"))).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = ray.execute_deliberation(keyed("k", derive("derive-q"))).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let unkeyed = ray.execute_deliberation(derive("derive-p")).await.unwrap().into_inner();
    assert_ne!(first.deliberation_id, unkeyed.deliberation_id);
}

#[tokio::test]
async fn it_refuses_on_demand() {
    let (mut ray, _running) = start(Some(Refusal::ResourceExhausted)).await;
    let status = ray.execute_deliberation(derive("derive-p")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(ray.get_active_jobs(GetActiveJobsRequest {}).await.unwrap().into_inner().jobs.is_empty());
}

#[tokio::test]
async fn an_agents_answer_waits_for_the_bus() {
    let fake = fake::Bus::new();
    let running = fake.serve(None).await;
    fake.streamless(true);
    let url = running.address.to_string();
    let (mut ray, _running) = start_on(&url, Duration::ZERO, None).await;
    let taken = ray.execute_deliberation(derive("derive-p")).await.unwrap().into_inner();
    fake.streamless(false);
    let request = || GetDeliberationStatusRequest { deliberation_id: taken.deliberation_id.clone() };
    until("the end of the deliberation", async || {
        ray.get_deliberation_status(request()).await.unwrap().into_inner().status == "completed"
    })
    .await;
    assert_eq!(fake.subjects(), ["agent.response.completed"]);
}
