//! A job of several agents: each answers, once, and the status is of all.

use harness::{metrics::counts, plugin::Plugin};
use serde_json::json;

use super::*;

fn agents(count: usize, prompt: &str) -> Value {
    let mut whole = job("t-1", MODEL, prompt);
    let agent =
        |n: usize| json!({ "id": format!("agent-{n}"), "role": "DEV", "model": "", "prompt_template": "" });
    whole["agents"] = (1..=count).map(agent).collect();
    whole
}

#[tokio::test]
async fn three_agents_make_three_answers() {
    let place = Place::new().await;
    let worker = place.worker(2).start_worker().await;
    let before = worker.scrape().await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    place.put(&queue, "whole", &agents(3, "three of you")).await;
    let answers = place.world.wait_stored("agent.response.completed", 3).await;
    let mut who = Vec::new();
    for answer in &answers {
        let payload = answer.payload();
        assert_eq!(payload["num_agents"], 3);
        assert_eq!(payload["deliberation_id"], queue.id("whole"));
        assert_eq!(payload["constraints"]["metadata"]["num_agents"], 3);
        assert_eq!(payload["proposal"]["content"].as_str().map(str::is_empty), Some(false));
        who.push(payload["agent_id"].as_str().expect("an agent").to_owned());
    }
    who.sort();
    assert_eq!(who, ["agent-1", "agent-2", "agent-3"]);
    place.world.quiet().await;
    assert_eq!(place.world.count("agent.response.>").await, 3);
    let record = place.record(&queue.id("whole")).await;
    assert_eq!(record["parts"], json!([queue.id("whole-a0"), queue.id("whole-a1"), queue.id("whole-a2")]));
    let moved = worker.scrape().await.since(&before);
    let expected = counts([("done", 3), ("split", 1)]);
    assert_eq!(moved.counts("cofferdam_jobs_total", &["outcome"]), expected);
}

#[tokio::test]
async fn a_worker_that_died_in_the_middle_of_splitting_repeats_no_part() {
    let place = Place::new().await;
    settled(place.worker(1).start_worker().await).await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    place.put(&queue, "whole", &agents(3, "three of you")).await;
    // What such a worker leaves behind: a part, and no record of the whole.
    let mut first = agents(1, "");
    first["agents"][0]["model"] = "".into();
    let part = json!({
        "id": queue.id("whole-a0"), "plugin": "p", "job": first,
        "parent": { "id": queue.id("whole"), "agents": 3, "submitted": now() },
    });
    place.world.publish(&queue.subject("whole-a0"), part).await;
    let _worker = place.worker(1).start_worker().await;
    let answers = place.world.wait_stored("agent.response.completed", 3).await;
    let mut who: Vec<String> = answers
        .iter()
        .map(|answer| answer.payload()["agent_id"].as_str().expect("an agent").to_owned())
        .collect();
    who.sort();
    assert_eq!(who, ["agent-1", "agent-2", "agent-3"]);
    place.world.quiet().await;
    assert_eq!(place.world.count("agent.response.>").await, 3);
    assert_eq!(place.endpoint.seen().await.by_prompt.get("three of you"), Some(&3));
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_nanos()).expect("this century")
}

#[tokio::test]
async fn a_whole_that_is_cancelled_ends_all_its_parts() {
    let place = Place::new().await;
    let _worker = place.worker(2).start_worker().await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    place.put(&queue, "whole", &agents(3, "!hold all")).await;
    place.endpoint.sees("two that are held", |seen| seen.open == 2).await;
    place.cancel(&queue.id("whole")).await;
    let failed = place.world.wait_stored("agent.response.failed", 3).await;
    assert!(failed.iter().all(|failed| failed.payload()["error_type"] == "cancelled"));
    place.world.quiet().await;
    assert_eq!(place.world.count("agent.response.>").await, 3);
}

#[tokio::test]
async fn a_whole_whose_time_is_over_fails_once_for_each_agent() {
    let place = Place::new().await;
    settled(place.worker(1).start_worker().await).await;
    let queue = Queue::new("p", MODEL);
    queue.open(&place.world.jetstream).await;
    let mut whole = agents(2, "hurry");
    whole["timeout_seconds"] = 1.into();
    place.put(&queue, "whole", &whole).await;
    let submitted = std::time::Instant::now();
    wait_for("the job's time to pass", async || (submitted.elapsed().as_millis() > 1100).then_some(())).await;
    let _worker = place.worker(1).start_worker().await;
    let failed = place.world.wait_stored("agent.response.failed", 2).await;
    assert!(failed.iter().all(|failed| failed.payload()["error_type"] == "timeout"));
    place.world.quiet().await;
    assert_eq!(place.world.count("agent.response.>").await, 2);
}

#[tokio::test]
async fn a_plugin_sees_the_whole_of_its_job() {
    let world = World::start().await;
    let guest =
        Plugin::fixture("submit-job").on("test.in", "").may("executor", &["default"]).reports_to("test.seen");
    let _daemon = world.setup().plugin(guest).with("executor.backend", "offline").start().await;
    let mut seen = world.watch("test.seen").await;
    world
        .publish("test.in", json!({ "task_id": "t-1", "prompt": "do it", "role": "DEV", "agents": 3 }))
        .await;
    let id = seen.next().await.json()["job"].as_str().expect("a job").to_owned();
    world.wait_stored("agent.response.completed", 3).await;
    let status = wait_for("the whole to be done", async || {
        world.publish("test.in", json!({ "status": id })).await;
        Some(seen.next().await.json()).filter(|seen| seen["phase"] != "Running" && seen["phase"] != "Queued")
    });
    assert_eq!(status.await["phase"], "Done");
}
