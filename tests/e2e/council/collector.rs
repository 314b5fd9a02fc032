//! Answers of agents that somebody else asked, as the council collects them.

use std::collections::BTreeMap;

use fleet_proto::orchestrator::v1::DeliberationStatus;
use harness::pipeline::bundled;
use serde_json::{Value, json};

use super::{Hall, ONE, Running, THREE, TWO, ends};
use crate::both::on_both_buses;

on_both_buses! {
    contract_6_a_deliberation_is_over_when_all_agents_have_answered,
    contract_6_some_may_fail_and_all_that_fail_fail_it,
    contract_6_what_is_not_answered_in_time_times_out_over_a_kill,
    contract_6_an_agent_counts_once_and_late_ones_are_ignored,
}

const ANSWERED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";

/// As the fleet's workers write it.
fn answer(task_id: &str, agent: &str, agents: u32, text: &str) -> Value {
    json!({
        "task_id": task_id, "agent_id": agent, "role": "DEV", "status": "completed", "duration_ms": 40,
        "timestamp": "2026-01-02T03:04:05Z", "num_agents": agents,
        "proposal": {"content": text, "author_id": agent, "author_role": "DEV"},
        "constraints": {"story_id": "S", "metadata": {"task_id": task_id, "num_agents": agents}},
    })
}

fn failure(task_id: &str, agent: &str, agents: u32) -> Value {
    json!({
        "task_id": task_id, "agent_id": agent, "role": "DEV", "error": "out of memory", "error_type": "RuntimeError",
        "num_agents": agents, "duration_ms": 40, "timestamp": "2026-01-02T03:04:05Z", "metadata": {"task_id": task_id},
    })
}

impl Running {
    async fn answers(&self, task_id: &str, agent: &str, agents: u32, text: &str) {
        self.daemon.publish(ANSWERED, answer(task_id, agent, agents, text)).await;
    }
}

async fn contract_6_a_deliberation_is_over_when_all_agents_have_answered(hall: Hall) {
    let running = hall.open().await;
    running.client.keeps_nothing_of("t").await;
    // The first is badly formed.
    let broken = format!("{ONE}\n\n```\nis not closed");
    running.answers("t", "a", 3, &broken).await;
    running.answers("t", "b", 3, TWO).await;
    let half = ends(&running.client, "t", DeliberationStatus::InProgress).await;
    assert_eq!(half.winner_id, "");
    running.answers("t", "c", 3, THREE).await;
    let told = running.told_once("t").await;
    for (key, value) in [
        ("status", json!("completed")),
        ("story_id", json!("S")),
        ("winner_id", json!("b")),
        ("result", json!(TWO)),
        ("total_agents", json!(3)),
        ("successful_responses", json!(3)),
        ("failed_responses", json!(0)),
    ] {
        assert_eq!(told[key], value, "{key}: {told}");
    }
    let ranked: Vec<&Value> =
        told["results"].as_array().expect("results").iter().map(|r| &r["agent_id"]).collect();
    assert_eq!(ranked, ["b", "c", "a"]);
    assert_eq!(told["decisions"].as_array().map(Vec::len), Some(1));
    let kept = ends(&running.client, "t", DeliberationStatus::Completed).await;
    assert_eq!((kept.winner_id.as_str(), kept.results.len()), ("b", 3));
    // One agent is a deliberation of one.
    running
        .daemon
        .publish(ANSWERED, json!({"task_id": "u", "agent_id": "a", "result": {"proposal": ONE}}))
        .await;
    assert_eq!(running.told_once("u").await["total_agents"], 1);
    // A derivation's answer is nobody's deliberation.
    running.answers("derive-p", "task-deriver", 1, ONE).await;
    running.answers("v", "a", 1, ONE).await;
    running.told_once("v").await;
    running.client.keeps_nothing_of("derive-p").await;
    running.no_dead_letters().await;
}

async fn contract_6_some_may_fail_and_all_that_fail_fail_it(hall: Hall) {
    let running = hall.open().await;
    running.daemon.publish(FAILED, failure("t", "a", 3)).await;
    running.answers("t", "b", 3, TWO).await;
    // The other way for answers.
    let third = json!({"task_id": "t", "agent_id": "c", "status": "failed", "error": "no tools"});
    running.daemon.publish("agent.results.t", third).await;
    let told = running.told_once("t").await;
    assert_eq!((&told["status"], &told["winner_id"]), (&json!("completed"), &json!("b")));
    assert_eq!((&told["successful_responses"], &told["failed_responses"]), (&json!(1), &json!(2)));
    // They come by different roads, so in any order.
    let failed = told["failed_agents"].as_array().expect("a list");
    let failed: BTreeMap<&str, &Value> =
        failed.iter().map(|one| (one["agent_id"].as_str().expect("an agent"), &one["error"])).collect();
    assert_eq!(failed, [("a", &json!("out of memory")), ("c", &json!("no tools"))].into());

    for agent in ["a", "b"] {
        running.daemon.publish(FAILED, failure("u", agent, 2)).await;
    }
    let told = running.told_once("u").await;
    assert_eq!((&told["status"], &told["decisions"]), (&json!("failed"), &json!([])));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("out of memory")), "{told}");
    let kept = ends(&running.client, "u", DeliberationStatus::Failed).await;
    assert!(kept.error_message.contains("out of memory"), "{kept:?}");
}

async fn contract_6_what_is_not_answered_in_time_times_out_over_a_kill(hall: Hall) {
    let hall = hall.with(bundled("council").set("collect_seconds", 2));
    let mut running = hall.open().await;
    running.answers("t", "a", 3, ONE).await;
    ends(&running.client, "t", DeliberationStatus::InProgress).await;
    running = hall.again(running).await;
    let told = running.told_once("t").await;
    assert_eq!((&told["status"], &told["total_agents"]), (&json!("timeout"), &json!(3)));
    assert_eq!((&told["successful_responses"], &told["winner_id"]), (&json!(1), &json!("a")));
    let kept = ends(&running.client, "t", DeliberationStatus::Timeout).await;
    assert_eq!(kept.results.len(), 1);
    // Too late.
    running.answers("t", "b", 3, TWO).await;
    running.answers("u", "a", 1, ONE).await;
    running.told_once("u").await;
    running.told_once("t").await;
    assert_eq!(running.client.kept("t").await.results.len(), 1);
}

async fn contract_6_an_agent_counts_once_and_late_ones_are_ignored(hall: Hall) {
    let running = hall.open().await;
    running.answers("t", "a", 2, ONE).await;
    ends(&running.client, "t", DeliberationStatus::InProgress).await;
    running.answers("t", "a", 2, THREE).await;
    running.daemon.publish(FAILED, failure("t", "a", 2)).await;
    running.answers("t", "b", 2, TWO).await;
    running.answers("t", "c", 2, THREE).await;
    let told = running.told_once("t").await;
    assert_eq!((&told["total_agents"], &told["successful_responses"]), (&json!(2), &json!(2)));
    assert_eq!(told["result"], ONE);
    // After it everything was read.
    running.answers("u", "a", 1, ONE).await;
    running.told_once("u").await;
    running.told_once("t").await;
    assert_eq!(running.client.kept("t").await.results.len(), 2);
    running.no_dead_letters().await;
}
