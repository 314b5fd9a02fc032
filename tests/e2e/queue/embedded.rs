//! The same where the daemon is its own bus, and works the jobs itself.

use harness::{plugin::Plugin, way_in::body};
use serde_json::json;

use super::*;

/// A daemon on the embedded bus with plugins that submit what they are told at `workflow.<name>`.
fn setup(endpoint: &Endpoint, plugins: &[&str]) -> Setup {
    let setup = Setup::local()
        .with("executor.backend", "queue")
        .with("executor.model", MODEL)
        .with("executor.vllm-url", format!("http://{}", endpoint.address()))
        .with("executor.concurrency", 1);
    plugins.iter().fold(setup, |setup, name| {
        let guest = Plugin::fixture("submit-job").named(name).on(&format!("workflow.{name}"), "");
        setup.plugin(guest.may("executor", &["default"]).reports_to("workflow.seen"))
    })
}

async fn submit(daemon: &Daemon, plugin: &str, prompt: &str, more: Value) {
    let mut told = json!({ "task_id": prompt, "role": "DEV", "prompt": prompt });
    if let (Some(told), Some(more)) = (told.as_object_mut(), more.as_object()) {
        told.extend(more.clone());
    }
    daemon.publish(&format!("workflow.{plugin}"), told).await;
}

/// The tasks that were told of, in this order, each of the plugin that its id begins with.
async fn told(daemon: &Daemon, subject: &str, count: usize) -> Vec<String> {
    let told = daemon.wait_stored(subject, count).await;
    told.iter().map(|told| body(told)["task_id"].as_str().expect("a task").to_owned()).collect()
}

#[tokio::test]
async fn shares_and_priorities_hold_on_the_embedded_bus() {
    let endpoint = Endpoint::start().await;
    let daemon = setup(&endpoint, &["a", "b"]).with("executor.plugins.b.weight", 3).start().await;
    submit(&daemon, "a", "!hold", json!({})).await;
    endpoint.sees("a job that is held", |seen| seen.open == 1).await;
    for n in 0..12 {
        submit(&daemon, "a", &format!("a {n}"), json!({})).await;
        submit(&daemon, "b", &format!("b {n:02}"), json!({ "priority": if n < 6 { "low" } else { "high" } }))
            .await;
    }
    daemon.wait_stored("workflow.seen", 25).await;
    endpoint.release().await;
    let order = told(&daemon, "agent.response.completed", 25).await;
    let theirs: Vec<&str> = order.iter().map(String::as_str).filter(|task| task.starts_with('b')).collect();
    let expected: Vec<String> = (6..12).chain(0..6).map(|n| format!("b {n:02}")).collect();
    assert_eq!(theirs, expected);
    let early = order[1..13].iter().filter(|task| task.starts_with('b')).count();
    assert!((8..=10).contains(&early), "{early} of 12: {order:?}");
}

#[tokio::test]
async fn a_job_that_died_with_its_daemon_ends_once_after_it() {
    let endpoint = Endpoint::start().await;
    let setup = setup(&endpoint, &["p"]);
    let mut daemon = setup.start().await;
    submit(&daemon, "p", "!hold", json!({})).await;
    endpoint.sees("a job that is held", |seen| seen.open == 1).await;
    submit(&daemon, "p", "next", json!({})).await;
    daemon.wait_stored("workflow.seen", 2).await;
    daemon.kill().await;
    let daemon = setup.start().await;
    endpoint.sees("that it is asked again", |seen| seen.requests == 2).await;
    endpoint.release().await;
    assert_eq!(told(&daemon, "agent.response.completed", 2).await, ["!hold", "next"]);
    assert_eq!(daemon.stored("agent.response.>").await.len(), 2);
}

#[tokio::test]
async fn several_agents_and_cancelling_work_on_the_embedded_bus() {
    let endpoint = Endpoint::start().await;
    let daemon = setup(&endpoint, &["p"]).start().await;
    submit(&daemon, "p", "!hold", json!({ "agents": 3 })).await;
    endpoint.sees("one that is held", |seen| seen.open == 1).await;
    let seen = daemon.wait_stored("workflow.seen", 1).await;
    let id = body(&seen[0])["job"].clone();
    daemon.publish("workflow.p", json!({ "cancel": id })).await;
    assert_eq!(told(&daemon, "agent.response.failed", 3).await, ["!hold", "!hold", "!hold"]);
    endpoint.sees("a client that went", |seen| seen.gone == 1).await;
    assert_eq!(endpoint.seen().await.requests, 1);
    assert_eq!(daemon.stored("agent.response.>").await.len(), 3);
}
