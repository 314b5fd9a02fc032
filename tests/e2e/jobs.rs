//! Jobs as plugins know them: how long jobs and their statuses are kept, what becomes of a job whose end can't be stored or whose
//! backend hangs, and who may cancel one.

use async_nats::jetstream::stream;
use fleet_proto::admin::v1::{CancelJobRequest, jobs_client::JobsClient};
use harness::{
    endpoint::Endpoint,
    executor::{Executor, Reply},
    metrics::counts,
    pipeline::executed_at,
    plugin::Plugin,
    setup::Setup,
    world::{Watch, World},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::Code;

fn submitter(world: &World) -> Setup {
    let guest =
        Plugin::fixture("submit-job").on("test.in", "").may("executor", &["default"]).reports_to("test.seen");
    world.setup().plugin(guest).with("executor.backend", "offline")
}

async fn submit(world: &World, seen: &mut Watch, prompt: &str) -> String {
    world.publish("test.in", json!({ "task_id": "t-1", "prompt": prompt, "role": "DEV" })).await;
    seen.next().await.json()["job"].as_str().expect("a job").to_owned()
}

async fn status(world: &World, seen: &mut Watch, job: &str) -> Value {
    world.quiet().await;
    world.publish("test.in", json!({ "status": job })).await;
    seen.next().await.json()
}

/// A prompt whose answer is as long as that.
fn prompt(bytes: usize) -> String {
    format!("Acceptance criteria:\n- It works {}\n", "x".repeat(bytes))
}

#[tokio::test]
async fn a_job_is_kept_for_a_week_and_its_status_for_a_day_longer() {
    let world = World::start().await;
    let _daemon = submitter(&world).start().await;
    let mut seen = world.watch("test.seen").await;
    let job = submit(&world, &mut seen, "Description: do it").await;
    world.quiet().await;
    for (subject, kept) in [(format!("cd.j.*.*.*.{job}"), "604800s"), (format!("cd.e.{job}"), "691200s")] {
        let [message] = world.wait_stored(&subject, 1).await.try_into().expect("one");
        assert_eq!(message.header("Nats-TTL"), Some(kept), "{subject}");
    }
}

#[tokio::test]
async fn a_result_too_large_for_its_stream_becomes_a_short_failure() {
    let world = World::start().await;
    let responses = stream::Config {
        name: "AGENT_RESPONSES".into(),
        subjects: vec!["agent.response.>".into()],
        max_message_size: 4096,
        ..Default::default()
    };
    world.jetstream.create_stream(responses).await.expect("a stream");
    let daemon = submitter(&world).start().await;
    let before = daemon.scrape().await;
    let mut seen = world.watch("test.seen").await;
    let job = submit(&world, &mut seen, &prompt(8192)).await;
    let [failed] = world.wait_stored("agent.response.failed", 1).await.try_into().expect("one");
    let payload = failed.payload();
    assert_eq!((&payload["task_id"], &payload["agent_id"]), (&json!("t-1"), &json!("agent-1")));
    assert_eq!(payload["error_type"], "result_too_large");
    let error = payload["error"].as_str().expect("an error");
    assert!(error.contains("over the limit of 4096 bytes"), "{error}");

    let told = status(&world, &mut seen, &job).await;
    assert_eq!((&told["phase"], &told["error"]), (&json!("Failed"), &json!(error)));
    assert_eq!(world.count("agent.response.>").await, 1);
    let moved = daemon.scrape().await.since(&before);
    assert_eq!(moved.counts("cofferdam_jobs_total", &["outcome"]), counts([("failed", 1)]));
}

#[tokio::test]
async fn an_end_that_no_stream_takes_leaves_a_status_and_says_what_to_do() {
    let world = World::start().await;
    let daemon = submitter(&world).with("bus.create-streams", false).start().await;
    let mut seen = world.watch("test.seen").await;
    let job = submit(&world, &mut seen, "Description: do it").await;
    let said = daemon.says("create a stream that covers \"agent.response.failed\"").await;
    assert_eq!((&said["level"], &said["subject"]), (&json!("ERROR"), &json!("agent.response.failed")));
    assert_eq!(status(&world, &mut seen, &job).await["phase"], "Failed");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_executor_that_hangs() {
    let world = World::start().await;
    // It takes connections and says nothing.
    let hanging = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = hanging.local_addr().expect("an address").to_string();
    let setup = submitter(&world)
        .upstream("ray", &address)
        .with("upstreams.ray.timeout", "10m")
        .with("executor.backend", "fleet")
        .with("executor.upstream", "ray")
        .with("dispatch.drain", "200ms");
    let mut daemon = setup.start().await;
    let mut seen = world.watch("test.seen").await;
    submit(&world, &mut seen, "Description: do it").await;
    let (_connection, _) = hanging.accept().await.expect("a connection");
    daemon.stop().await;
    assert!(daemon.log().text().contains("stopped while it was worked"), "{}", daemon.log().text());
}

#[tokio::test]
async fn a_job_that_runs_is_stopped_by_the_plugin_that_submitted_it() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = submitter(&world)
        .with("executor.backend", "queue")
        .with("executor.model", "m")
        .with("executor.endpoints.one.url", endpoint.url());
    let _worker = setup.start_worker().await;
    let _daemon = setup.start().await;
    let mut seen = world.watch("test.seen").await;
    let job = submit(&world, &mut seen, "!hold it").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    // Twice is as once.
    for _ in 0..2 {
        world.publish("test.in", json!({ "cancel": job })).await;
        assert_eq!(seen.next().await.json(), json!({ "cancelled": job }));
    }
    endpoint.sees("that nobody waits", |seen| seen.gone == 1).await;
    let [failed] = world.wait_stored("agent.response.failed", 1).await.try_into().expect("one");
    assert_eq!(
        (&failed.payload()["task_id"], &failed.payload()["error_type"]),
        (&json!("t-1"), &json!("cancelled"))
    );
    assert_eq!(status(&world, &mut seen, &job).await["phase"], "Cancelled");
    world.publish("test.in", json!({ "cancel": job })).await;
    assert_eq!(seen.next().await.json(), json!({ "cancelled": job }), "one that has ended");
    assert_eq!(world.count("agent.response.>").await, 1);
    assert_eq!(endpoint.seen().await.requests, 1);
}

#[tokio::test]
async fn a_job_that_the_fleets_executor_has_is_not_cancelled_here() {
    let world = World::start().await;
    let executor = Executor::start(&world, |_| Reply::Messages(Vec::new())).await;
    let daemon = executed_at(submitter(&world), &executor.address).start().await;
    let mut seen = world.watch("test.seen").await;
    let job = submit(&world, &mut seen, "Description: do it").await;
    world.wait_stored(&format!("cd.e.{job}"), 1).await;
    let mut jobs = JobsClient::connect(format!("http://{}", daemon.admin())).await.expect("the admin port");
    let refused = jobs.cancel(CancelJobRequest { id: job.clone(), wait_ms: 0 }).await.expect_err("not here");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let said = format!("the fleet's executor has the job {job}, as deliberation-1, and takes no cancelling");
    assert!(refused.message().starts_with(&said), "{refused}");
    assert_eq!(world.count("cd.x.>").await, 0);
}

#[tokio::test]
async fn a_plugin_cancels_no_other_plugins_job() {
    let world = World::start().await;
    let daemon = submitter(&world).start().await;
    let mut seen = world.watch("test.seen").await;
    for (id, refusal) in [
        ("other_normal_00000000_1-j0", Some("denied: ")),
        ("clients_high_00000000_1", Some("denied: ")),
        ("submit-job", Some("invalid: ")),
        ("submit-job_normal_*_1", Some("invalid: ")),
        ("submit-job_normal_00000000_never-was", None),
    ] {
        world.publish("test.in", json!({ "cancel": id })).await;
        let told = seen.next().await.json();
        match refusal {
            Some(refusal) => {
                assert!(told["refused"].as_str().is_some_and(|why| why.starts_with(refusal)), "{id}: {told}")
            }
            None => assert_eq!(told, json!({ "cancelled": id })),
        }
    }
    world.quiet().await;
    let wishes = world.stored("cd.x.>").await;
    assert_eq!(
        wishes.iter().map(|wish| wish.subject.as_str()).collect::<Vec<_>>(),
        ["cd.x.submit-job_normal_00000000_never-was"]
    );
    assert_eq!(world.count("agent.response.>").await, 0);
    drop(daemon);
}

#[tokio::test]
async fn a_jobs_queue_is_told_of_before_the_job_is_there() {
    let world = World::start().await;
    let _daemon = submitter(&world).start().await;
    let mut seen = world.watch("test.seen").await;
    world
        .publish("test.in", json!({ "task_id": "t-1", "prompt": "p", "role": "DEV", "priority": "high" }))
        .await;
    let job = seen.next().await.json()["job"].as_str().expect("a job").to_owned();
    assert!(job.starts_with("submit-job_high_"), "{job}");
    let [queue] = world.wait_stored("cd.u.>", 1).await.try_into().expect("one");
    let [job] = world.wait_stored("cd.j.>", 1).await.try_into().expect("one");
    assert!(queue.subject.starts_with("cd.u.submit-job.high.") && queue.sequence < job.sequence);
    assert_eq!(queue.json()["model"], job.json()["job"]["model"]);
}
