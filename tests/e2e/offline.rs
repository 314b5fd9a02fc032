//! The offline executor on its bad days: whatever its answers look like, a derivation reads tasks in them or says by name what
//! is wrong and asks again, and ends.

use std::collections::{BTreeMap, BTreeSet};

use fleet_proto::bus::v1::StoredMessage;
use harness::{
    daemon::Daemon, pipeline::derivation_on, planning::Planning, setup::Setup, wait::wait_for, way_in::body,
};
use serde_json::{Value, json};

const APPROVED: &str = "planning.plan.approved";
const ANSWERED: &str = "agent.response.completed";
const PARSED: &str = "cofferdam.derivation.parsed";
const REJECTED: &str = "cofferdam.derivation.rejected";
const COMPLETED: &str = "task.derivation.completed";
const FAILED: &str = "task.derivation.failed";
/// Enough for each kind of mess to come up.
const PLANS: usize = 40;

async fn payloads(daemon: &Daemon, subject: &str) -> Vec<Value> {
    daemon
        .stored(subject)
        .await
        .iter()
        .map(|stored: &StoredMessage| body(stored)["payload"].clone())
        .collect()
}

fn plans(payloads: &[Value]) -> BTreeSet<&str> {
    payloads.iter().filter_map(|payload| payload["plan_id"].as_str()).collect()
}

async fn answers(seed: u32) -> (Vec<String>, BTreeMap<String, usize>) {
    let planning = Planning::start().await;
    let mut daemon = derivation_on(Setup::local(), &planning.address, &planning.address)
        .with("executor.backend", "offline")
        .with("executor.offline.messy", 100)
        .with("executor.offline.seed", seed)
        .start()
        .await;
    for n in 0..PLANS {
        daemon.publish(APPROVED, json!({ "plan_id": format!("p-{n}") })).await;
    }
    wait_for("all derivations to end", async || {
        let ended = daemon.stored(COMPLETED).await.len() + daemon.stored(FAILED).await.len();
        (ended >= PLANS).then_some(())
    })
    .await;
    let (completed, failed) = (payloads(&daemon, COMPLETED).await, payloads(&daemon, FAILED).await);
    assert_eq!(completed.len() + failed.len(), PLANS, "each ends once");
    assert_eq!(plans(&completed).union(&plans(&failed)).count(), PLANS);
    // Each answer was read, or refused by name; nothing else became of it.
    let (answered, parsed) = (payloads(&daemon, ANSWERED).await, payloads(&daemon, PARSED).await);
    let rejected = payloads(&daemon, REJECTED).await;
    assert_eq!(answered.len(), parsed.len() + rejected.len());
    let mut kinds = BTreeMap::new();
    for payload in &rejected {
        let kind = payload["kind"].as_str().expect("a kind").to_owned();
        assert!(
            ["no_tasks", "truncated_json", "too_many_tasks", "circular_dependency"].contains(&kind.as_str()),
            "{payload}"
        );
        *kinds.entry(kind).or_default() += 1;
    }
    for payload in &parsed {
        let titles = payload["tasks"].to_string();
        assert!(!titles.contains("A thought that is no task"), "{titles}");
    }
    assert!(answered.iter().all(|answer| answer["proposal"]["model"] == "cofferdam-offline"));
    let texts = answered
        .iter()
        .filter_map(|answer| answer["proposal"]["content"].as_str().map(str::to_owned))
        .collect();
    daemon.stop().await;
    (texts, kinds)
}

#[tokio::test]
async fn messy_answers_become_tasks_or_a_named_rejection_and_every_derivation_ends() {
    let (texts, kinds) = answers(7).await;
    let shows = |part: &str| texts.iter().any(|text| text.contains(part));
    for part in [
        "```",
        "</think>",
        "**TITLE:**",
        "\ntitle: ",
        "1. TASK_ID:",
        "\n---\n",
        "\"title\": ",
        "\r\n",
        "rule-based stand-in",
    ] {
        assert!(shows(part), "no answer with {part:?}");
    }
    assert!(kinds.contains_key("no_tasks") || kinds.contains_key("truncated_json"), "{kinds:?}");
}
