//! The job queue: how long jobs and their statuses are kept, and what becomes of a job whose end can't be stored or whose
//! backend hangs.

use async_nats::jetstream::stream;
use harness::{
    metrics::counts,
    plugin::Plugin,
    setup::Setup,
    world::{Watch, World},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

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
    for (subject, kept) in [(format!("cd.j.{job}"), "604800s"), (format!("cd.q.{job}"), "691200s")] {
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
