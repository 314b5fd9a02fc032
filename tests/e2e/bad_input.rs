//! Bad input and bad neighbours: each has the outcome that the contract expects, is told with whose fault it was, and moves
//! exactly the metrics that it should.

use bytes::Bytes;
use harness::{
    executor::{Executor, Reply},
    fleet::Fleet,
    gate::Gate,
    metrics::{Scrape, counts},
    pipeline::{derivation, executed_at, pipeline},
    planning::Planning,
    world::World,
};
use serde_json::{Value, json};

const APPROVED: &str = "planning.plan.approved";

/// A message that prompt-builder must refuse: its one dead letter, and what moved.
async fn refused(data: Bytes) -> (Value, Scrape) {
    let world = World::start().await;
    let planning = Planning::start().await;
    let setup = derivation(&world, &planning.address, &planning.address).with("executor.backend", "offline");
    let daemon = setup.start().await;
    let before = daemon.scrape().await;
    let sequence = world.publish_bytes(APPROVED, &[("X-Sent-By", "a test")], data).await;
    let letter = world.dead_letters("prompt-builder", 1).await.remove(0);
    let moved = daemon.events(&before, [("prompt-builder rejected guest", 1)]).await;
    world.quiet().await;
    assert_eq!(world.count("cofferdam.dead.>").await, 1);
    assert_eq!(world.count("task.derivation.>").await, 0);
    assert_eq!(planning.calls().len(), 0);
    assert_eq!(letter["event"]["subject"], APPROVED);
    assert!(
        letter["event"]["id"].as_str().is_some_and(|id| id.ends_with(&format!(".{sequence}"))),
        "{letter}"
    );
    assert!(letter["event"]["headers"].to_string().contains("a test"), "{letter}");
    let line = daemon.says("dead letter: ").await;
    assert_eq!((&line["plugin"], &line["fault"]), (&json!("prompt-builder"), &json!("guest")));
    (letter, moved)
}

fn assert_refused(letter: &Value, moved: &Scrape, reason: &str) {
    assert_eq!((&letter["plugin"], &letter["outcome"]), (&json!("prompt-builder"), &json!("rejected")));
    assert_eq!((&letter["fault"], &letter["attempts"]), (&json!("guest"), &json!(1)));
    assert!(letter["reason"].as_str().is_some_and(|r| r.contains(reason)), "{letter}");
    assert_eq!(moved.counts("cofferdam_dead_letters_total", &["plugin"]), counts([("prompt-builder", 1)]));
    assert_eq!(moved.sum("task_derivation_requests_received", &[]), 0.0);
}

#[tokio::test]
async fn what_is_not_json_becomes_a_dead_letter_with_its_text() {
    let (letter, moved) = refused(Bytes::from_static(b"plan p-1 is approved")).await;
    assert_refused(&letter, &moved, "not JSON");
    assert_eq!(letter["event"]["data"], json!({ "text": "plan p-1 is approved" }));
}

#[tokio::test]
async fn what_is_not_even_text_is_kept_to_the_byte() {
    let (letter, moved) = refused(Bytes::from_static(&[0xff, 0x00, 0x7b])).await;
    assert_refused(&letter, &moved, "not JSON");
    assert_eq!(letter["event"]["data"], json!({ "base64": "/wB7" }));
}

#[tokio::test]
async fn a_trigger_without_its_plan_becomes_a_dead_letter() {
    let (letter, moved) = refused(Bytes::from_static(br#"{"story_id": "s-1", "plan_id": "  "}"#)).await;
    assert_refused(&letter, &moved, "it has no plan_id");
}

/// The one `task.derivation.failed`, once all has come to rest.
async fn failed(world: &World) -> Value {
    let failed = world.wait_stored("task.derivation.failed", 1).await;
    world.quiet().await;
    assert_eq!(world.count("task.derivation.failed").await, 1);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
    let payload = failed[0].payload();
    assert_eq!(payload["requires_manual_review"], true, "{payload}");
    payload
}

#[tokio::test]
async fn a_plan_that_planning_does_not_know_fails_the_derivation_at_once() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let daemon = pipeline(&world, &fleet).start().await;
    let before = daemon.scrape().await;
    world.publish(APPROVED, json!({ "plan_id": "nobody", "story_id": "s-1" })).await;
    let payload = failed(&world).await;
    assert_eq!((&payload["plan_id"], &payload["story_id"]), (&json!("nobody"), &json!("s-1")));
    let reason = payload["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("plan_not_found: ") && reason.contains("nobody"), "{reason}");
    let moved = daemon.events(&before, [("prompt-builder done -", 1)]).await;
    assert_eq!(moved.counts("task_derivation_failed", &["reason"]), counts([("plan_not_found", 1)]));
    // 5 is NOT_FOUND.
    let calls = moved.counts("cofferdam_rpc_calls_total", &["plugin", "upstream", "code"]);
    assert_eq!(calls, counts([("prompt-builder planning 5", 1)]));
}

#[tokio::test]
async fn a_planning_that_stays_down_fails_the_derivation_after_the_attempts() {
    let world = World::start().await;
    let gate = Gate::closed().await;
    let setup = derivation(&world, &gate.address(), &gate.address()).with("executor.backend", "offline");
    let daemon = setup.start().await;
    let before = daemon.scrape().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1", "story_id": "s-1" })).await;
    let payload = failed(&world).await;
    assert!(payload["reason"].as_str().is_some_and(|r| r.starts_with("planning_unavailable: ")), "{payload}");
    let expected = [("prompt-builder done -", 1), ("prompt-builder retry upstream", 2)];
    daemon.events(&before, expected).await;
    let line = daemon.says("will be tried again: planning_unavailable").await;
    assert_eq!(
        (&line["fault"], &line["outcome"], &line["attempt"]),
        (&json!("upstream"), &json!("retry"), &json!(1))
    );
}

#[tokio::test]
async fn a_planning_that_comes_back_gets_its_tasks() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let gate = Gate::closed().await;
    let setup = pipeline(&world, &fleet).upstream("planning", &gate.address());
    let daemon = setup.start().await;
    let plan_id = fleet.plan("Checkout").await;
    fleet.approve(&plan_id).await;
    daemon.says("will be tried again: planning_unavailable").await;
    gate.open(&fleet.planning);
    assert!(fleet.planned(&plan_id).await.len() >= 3);
    assert_eq!(world.count("task.derivation.failed").await, 0);
}

#[tokio::test]
async fn a_planning_slower_than_its_time_out_counts_as_down() {
    let world = World::start().await;
    let fleet = Fleet::start_with(&world, &["--planning-delay", "20s"]).await;
    let setup = derivation(&world, &fleet.planning, &fleet.context)
        .with("upstreams.planning.timeout", "200ms")
        .with("executor.backend", "offline");
    let daemon = setup.start().await;
    let before = daemon.scrape().await;
    let plan_id = fleet.plan("Checkout").await;
    fleet.approve(&plan_id).await;
    let payload = failed(&world).await;
    assert!(payload["reason"].as_str().is_some_and(|r| r.starts_with("planning_unavailable: ")), "{payload}");
    let expected = [("prompt-builder done -", 1), ("prompt-builder retry upstream", 2)];
    let moved = daemon.events(&before, expected).await;
    // 4 is DEADLINE_EXCEEDED.
    let calls = moved.counts("cofferdam_rpc_calls_total", &["plugin", "upstream", "code"]);
    assert_eq!(calls, counts([("prompt-builder planning 4", 3)]));
}

#[tokio::test]
async fn failures_that_pass_cost_attempts_and_nothing_else() {
    for fault in ["--planning-fail", "--planning-lose"] {
        let world = World::start().await;
        let fleet = Fleet::start_with(&world, &[fault, "2"]).await;
        let daemon = pipeline(&world, &fleet).start().await;
        let before = daemon.scrape().await;
        let plan_id = fleet.plan("Checkout").await;
        fleet.approve(&plan_id).await;
        let tasks = fleet.planned(&plan_id).await;
        world.wait_stored("workflow.task.assigned", tasks.len()).await;
        world.quiet().await;
        assert_eq!(world.count("task.derivation.completed").await, 1, "{fault}");
        assert_eq!(world.count("task.derivation.failed").await, 0, "{fault}");
        let moved = daemon.scrape().await.since(&before);
        let retried = moved.events().get("prompt-builder retry upstream").copied();
        assert_eq!(retried, Some(2), "{fault}");
        // A repeated run is one request still.
        assert_eq!(moved.sum("task_derivation_requests_received", &[]), 1.0, "{fault}");
    }
}

#[tokio::test]
async fn tasks_whose_creation_went_unanswered_are_not_created_again() {
    let world = World::start().await;
    let planning = Planning::start().await;
    planning.lose("CreateTasks", 1);
    planning.lose("SaveTaskDependencies", 1);
    let text = "TITLE: One\nKEYWORDS: one\n\nTITLE: After one\n";
    let executor = Executor::start(&world, move |_| Reply::Text(text.to_owned())).await;
    let setup = derivation(&world, &planning.address, &planning.address);
    let daemon = executed_at(setup, &executor.address).start().await;
    let before = daemon.scrape().await;
    world.publish(APPROVED, json!({ "plan_id": "p-1" })).await;
    let completed = world.wait_stored("task.derivation.completed", 1).await;
    world.quiet().await;
    assert_eq!(completed[0].payload()["task_count"], 2);
    assert_eq!(planning.titles(), ["One", "After one"]);
    let edge = ("After one".to_owned(), "One".to_owned());
    assert_eq!(planning.edges(), [edge.clone(), edge], "the same edge, each time");
    let done = [("prompt-builder done -", 1), ("output-parser done -", 1), ("dependency-analyzer done -", 1)];
    let [prompted, parsed, stored] = done;
    daemon.events(&before, [prompted, parsed, stored, ("dependency-analyzer retry upstream", 2)]).await;
    let keys: Vec<_> = planning
        .calls()
        .iter()
        .filter(|call| call.method == "SaveTaskDependencies")
        .map(|call| call.metadata.get("cofferdam-idempotency-key").cloned())
        .collect();
    assert!(keys.len() == 2 && keys[0].is_some() && keys[0] == keys[1], "one call, one key: {keys:?}");
}

#[tokio::test]
async fn a_context_that_is_down_is_done_without() {
    let world = World::start().await;
    let fleet = Fleet::start_with(&world, &["--context-down"]).await;
    let daemon = pipeline(&world, &fleet).start().await;
    let before = daemon.scrape().await;
    let plan_id = fleet.plan("Checkout").await;
    fleet.approve(&plan_id).await;
    assert!(fleet.planned(&plan_id).await.len() >= 3);
    world.quiet().await;
    let moved = daemon.scrape().await.since(&before);
    // 14 is UNAVAILABLE; one call for each of the plan's two roles.
    assert_eq!(moved.sum("cofferdam_rpc_calls_total", &[("upstream", "context"), ("code", "14")]), 2.0);
    assert_eq!(moved.events()["prompt-builder done -"], 1);
    assert!(moved.events().keys().all(|event| event.ends_with(" done -")), "{:?}", moved.events());
    daemon.says("going on without the context for DEV").await;
}
