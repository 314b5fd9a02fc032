//! The main job: an approved plan becomes tasks with dependencies in Planning, and the first assignments go out.

use std::collections::BTreeSet;

use harness::{
    fleet::Fleet,
    pipeline::pipeline,
    world::{Message, World},
};
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The keys of `workflow.task.assigned`: what each version of its readers looks for.
const ASSIGNED: [&str; 9] = [
    "task_id",
    "story_id",
    "role",
    "assigned_to_role",
    "action",
    "required_action",
    "action_required",
    "current_state",
    "timestamp",
];

fn ids(messages: &[Message]) -> BTreeSet<String> {
    messages.iter().map(|m| m.payload()["task_id"].as_str().expect("a task_id").to_owned()).collect()
}

#[tokio::test]
async fn an_approved_plan_becomes_tasks_with_dependencies_and_assignments() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let _daemon = pipeline(&world, &fleet).start().await;
    let plan_id = fleet.plan("Checkout").await;
    fleet.approve(&plan_id).await;

    let tasks = fleet.planned(&plan_id).await;
    assert!(tasks.len() >= 3, "{tasks:#?}");
    let known: BTreeSet<_> = tasks.iter().map(|task| task.task_id.clone()).collect();
    let needed: Vec<_> = tasks.iter().flat_map(|task| &task.depends_on).collect();
    assert!(!needed.is_empty(), "{tasks:#?}");
    assert!(needed.iter().all(|dependency| known.contains(&dependency.task_id)), "{tasks:#?}");

    let assigned = world.wait_stored("workflow.task.assigned", tasks.len()).await;
    world.quiet().await;
    assert_eq!(world.count("workflow.task.assigned").await, tasks.len(), "each task once");
    assert_eq!(ids(&assigned), known);
    let plan = fleet.show(&plan_id).await;
    for message in &assigned {
        let payload = message.payload();
        let keys: BTreeSet<&str> =
            payload.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(ASSIGNED));
        let expected = json!({
            "story_id": plan.story_id, "role": "developer", "assigned_to_role": "developer",
            "action": "IMPLEMENT_FEATURE", "required_action": "IMPLEMENT_FEATURE", "action_required": "commit_code",
            "current_state": "implementing",
        });
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&payload[key], value, "{key}");
        }
        assert!(payload["timestamp"].as_str().is_some_and(|t| t.ends_with('Z')), "{payload}");
        // The mirror: readers of bare messages find the same keys at the top.
        assert_eq!(message.json()["task_id"], payload["task_id"]);
    }

    let [completed] = world.stored("task.derivation.completed").await.try_into().expect("exactly one");
    let payload = completed.payload();
    assert_eq!(payload["plan_id"], json!(plan_id));
    assert_eq!(payload["story_id"], json!(plan.story_id));
    assert_eq!(payload["task_count"], json!(tasks.len()));
    assert_eq!(payload["status"], "success");
    assert!(payload["derivation_request_id"].as_str().is_some_and(|id| !id.is_empty()), "{payload}");
    assert!(payload["occurred_at"].as_str().is_some_and(|t| t.ends_with('Z')), "{payload}");
    assert_eq!(world.count("task.derivation.failed").await, 0);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

#[tokio::test]
async fn a_plan_approved_twice_gets_its_tasks_once() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let daemon = pipeline(&world, &fleet).start().await;
    let before = daemon.scrape().await;
    let plan_id = fleet.plan("Checkout").await;
    // At once, so that the second meets an open derivation, and once more after its end.
    fleet.approve(&plan_id).await;
    fleet.approve(&plan_id).await;
    let tasks = fleet.planned(&plan_id).await;
    fleet.approve(&plan_id).await;

    let received = "task_derivation_requests_received";
    daemon.moved("three requests", &before, |m| m.sum(received, &[]) == 3.0).await;
    world.wait_stored("workflow.task.assigned", tasks.len()).await;
    world.quiet().await;
    let again = fleet.show(&plan_id).await.tasks;
    let ids = |tasks: &[fleet_proto::standin::v1::Task]| {
        tasks.iter().map(|t| t.task_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ids(&tasks));
    assert_eq!(world.count("planning.task.created").await, tasks.len());
    assert_eq!(world.count("workflow.task.assigned").await, tasks.len());
}

#[tokio::test]
async fn both_triggers_work_enveloped_and_bare() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let _daemon = pipeline(&world, &fleet).start().await;
    let envelope = |subject: &str, payload: Value| {
        json!({
            "event_type": subject, "idempotency_key": format!("key-{}", payload["plan_id"]), "correlation_id": "c",
            "timestamp": "2026-01-02T03:04:05+00:00Z", "producer": "a test", "payload": payload,
        })
    };
    let (approved, requested) = ("planning.plan.approved", "task.derivation.requested");
    let mut plans = Vec::new();
    for n in 0..5 {
        plans.push(fleet.plan(&format!("Plan {n}")).await);
    }
    world.publish(approved, json!({ "plan_id": plans[0] })).await;
    world.publish(approved, envelope(approved, json!({ "plan_id": plans[1], "roles": ["dev"] }))).await;
    world.publish(requested, json!({ "plan_id": plans[2], "roles": "QA", "unknown": {} })).await;
    world
        .publish(requested, json!({ "plan_id": plans[3], "roles": null, "occurred_at": 1_767_000_000 }))
        .await;
    world
        .publish(requested, envelope(requested, json!({ "plan_id": plans[4], "requested_by": "ann" })))
        .await;

    let mut all = 0;
    for plan_id in &plans {
        let tasks = fleet.planned(plan_id).await;
        assert!(tasks.len() >= 3, "{tasks:#?}");
        all += tasks.len();
    }
    world.wait_stored("workflow.task.assigned", all).await;
    assert_eq!(world.count("task.derivation.completed").await, plans.len());
}

#[tokio::test]
async fn the_trail_leads_from_the_trigger_to_the_assignment() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let _daemon = pipeline(&world, &fleet).start().await;
    let plan_id = fleet.plan("Checkout").await;
    let trigger = json!({
        "event_type": "planning.plan.approved", "idempotency_key": "the-trigger", "correlation_id": "the-trail",
        "timestamp": "2026-01-02T03:04:05Z", "producer": "a test", "payload": { "plan_id": plan_id },
    });
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    world.publish_with("planning.plan.approved", &[("traceparent", &parent)], trigger).await;
    let tasks = fleet.planned(&plan_id).await;
    let assigned = world.wait_stored("workflow.task.assigned", tasks.len()).await;

    let one = async |subject: &str| world.stored(subject).await.remove(0);
    let text = |message: &Message, key: &str| message.json()[key].as_str().unwrap_or_default().to_owned();
    let answer = one("agent.response.completed").await;
    let parsed = one("cofferdam.derivation.parsed").await;
    let completed = one("task.derivation.completed").await;
    let created = world.stored("planning.task.created").await;
    assert_eq!(text(&parsed, "causation_id"), text(&answer, "idempotency_key"));
    assert_eq!(text(&completed, "causation_id"), text(&parsed, "idempotency_key"));
    let causes: BTreeSet<_> = created.iter().map(|m| text(m, "idempotency_key")).collect();
    for message in &created {
        assert_eq!(text(message, "causation_id"), text(&completed, "idempotency_key"));
    }
    for message in &assigned {
        assert!(causes.contains(&text(message, "causation_id")), "{}", message.json());
    }
    for message in [&parsed, &completed].into_iter().chain(&created).chain(&assigned) {
        assert_eq!(text(message, "correlation_id"), "the-trail", "{}", message.subject);
    }
    // Across the executor as well: its answer belongs to the trace of the question.
    for message in [&answer, &parsed, &completed] {
        let trace =
            message.header("traceparent").unwrap_or_else(|| panic!("no trace on {}", message.subject));
        assert!(
            trace.starts_with(&format!("00-{TRACE}-")) && trace != parent,
            "{}: {trace}",
            message.subject
        );
    }
    for message in &assigned {
        assert!(message.header("traceparent").is_some_and(|t| t.starts_with("00-")), "{:?}", message.headers);
    }
}

#[tokio::test]
async fn the_wire_setting_chooses_how_events_are_written() {
    for (envelope, enveloped, mirrored) in [("bare", false, true), ("envelope", true, false)] {
        let world = World::start().await;
        // The stand-ins write the other way: everybody reads both.
        let theirs = if envelope == "bare" { "envelope" } else { "bare" };
        let fleet = Fleet::start_with(&world, &["--envelope", theirs]).await;
        let _daemon = pipeline(&world, &fleet).with("wire.envelope", envelope).start().await;
        let plan_id = fleet.plan("Checkout").await;
        fleet.approve(&plan_id).await;
        let tasks = fleet.planned(&plan_id).await;
        for message in world.wait_stored("workflow.task.assigned", tasks.len()).await {
            let body = message.json();
            assert_eq!(body["payload"].is_object(), enveloped, "{envelope}: {body}");
            assert_eq!(body["task_id"].is_string(), mirrored, "{envelope}: {body}");
        }
    }
}
