//! Derivation with an executor that is a service of its own: what it is asked, and what follows when it refuses, is down,
//! or its model answers oddly. The texts themselves are in `answers`.

use harness::{
    executor::{Executor, Reply},
    fleet::{Fleet, Ray},
    gate::Gate,
    metrics::counts,
    pipeline::{bundled, derivation, executed_at},
    planning::Planning,
    world::World,
};
use serde_json::json;

const THREE_TASKS: &str = "TASK_ID: TASK-001\nTITLE: Design the cart\nROLE: ARCHITECT\nESTIMATED_HOURS: 4\n\
    PRIORITY: 1\nKEYWORDS: cart\n\nTASK_ID: TASK-002\nTITLE: Build the cart\nROLE: DEVELOPER\nDEPENDS_ON: TASK-001\n\n\
    TASK_ID: TASK-003\nTITLE: Test the cart\nROLE: QA\nDEPENDS_ON: TASK-002\n";

#[tokio::test]
async fn the_executor_is_asked_as_the_contract_says() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = Executor::start(&world, |_| Reply::Text(THREE_TASKS.to_owned())).await;
    let setup = derivation(&world, &planning.address, &planning.address);
    let _daemon =
        executed_at(setup, &executor.address).with("executor.vllm-url", "http://gpu:8000").start().await;
    world.publish("planning.plan.approved", json!({ "plan_id": "p-1", "story_id": "s-1" })).await;

    let asked = executor.wait_asked(1).await.remove(0);
    let request = asked.request;
    assert_eq!((request.task_id.as_str(), request.role.as_str()), ("derive-p-1", "SYSTEM"));
    assert!(request.task_description.contains("Title: A plan"), "{}", request.task_description);
    assert!(request.task_description.contains("- It works"), "{}", request.task_description);
    let constraints = request.constraints.expect("constraints");
    assert_eq!((constraints.plan_id.as_str(), constraints.story_id.as_str()), ("p-1", "s-1"));
    assert_eq!((constraints.timeout_seconds, constraints.max_retries), (120, 3));
    assert_eq!(constraints.metadata.get("task_id").map(String::as_str), Some("derive-p-1"));
    assert_eq!(constraints.metadata.get("attempt").map(String::as_str), Some("1"));
    let [agent] = request.agents.try_into().expect("one agent");
    assert_eq!((agent.id.as_str(), agent.role.as_str()), ("task-deriver", "SYSTEM"));
    assert_eq!(agent.model, "Qwen/Qwen2.5-7B-Instruct");
    assert_eq!(request.vllm_model, "Qwen/Qwen2.5-7B-Instruct");
    assert_eq!(request.vllm_url, "http://gpu:8000");
    for name in ["cofferdam-idempotency-key", "traceparent", "grpc-timeout"] {
        assert!(asked.metadata.contains_key(name), "{name} of {:?}", asked.metadata);
    }

    let [completed] = world.wait_stored("task.derivation.completed", 1).await.try_into().expect("one");
    assert_eq!(completed.payload()["derivation_request_id"], "deliberation-1");
    assert_eq!(planning.titles(), ["Design the cart", "Build the cart", "Test the cart"]);
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let expected = [edge("Build the cart", "Design the cart"), edge("Test the cart", "Build the cart")];
    assert_eq!(planning.edges(), expected);
}

#[tokio::test]
async fn a_ray_executor_answers_in_every_style() {
    for style in ["mirror", "envelope", "bare"] {
        let world = World::start().await;
        let fleet = Fleet::start(&world).await;
        let answer = file_with(THREE_TASKS);
        let path = answer.path().to_str().expect("a path in UTF-8");
        let ray = Ray::start_with(&world, &["--answer", path, "--envelope", style]).await;
        let setup = derivation(&world, &fleet.planning, &fleet.context);
        let _daemon = executed_at(setup, &ray.address).start().await;
        let plan_id = fleet.plan("Cart").await;
        fleet.approve(&plan_id).await;
        let tasks = fleet.planned(&plan_id).await;
        let titles: Vec<_> = tasks.iter().map(|task| (task.title.as_str(), task.role.as_str())).collect();
        let expected =
            [("Design the cart", "ARCHITECT"), ("Build the cart", "DEVELOPER"), ("Test the cart", "QA")];
        assert_eq!(titles, expected, "{style}");
    }
}

fn file_with(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a text");
    file
}

#[tokio::test]
async fn a_refusal_ends_in_manual_review_after_the_retries() {
    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let ray = Ray::start_with(&world, &["--refuse=invalid-argument"]).await;
    let setup = derivation(&world, &fleet.planning, &fleet.context);
    let setup = executed_at(setup, &ray.address).plugin(bundled("prompt-builder").set("max_retries", 2));
    let daemon = setup.start().await;
    let before = daemon.scrape().await;
    let plan_id = fleet.plan("Cart").await;
    fleet.approve(&plan_id).await;

    let [failed] = world.wait_stored("task.derivation.failed", 1).await.try_into().expect("one");
    let payload = failed.payload();
    assert_eq!((&payload["plan_id"], &payload["status"]), (&json!(plan_id), &json!("failed")));
    assert_eq!(payload["requires_manual_review"], true);
    let reason = payload["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("agent_failed: ") && reason.contains("attempt 3 of 3"), "{reason}");
    world.quiet().await;
    assert_eq!(world.count("task.derivation.failed").await, 1);
    assert_eq!(world.count("agent.response.failed").await, 3);
    assert_eq!(world.count("task.derivation.completed").await, 0);
    let plan = fleet.show(&plan_id).await;
    assert_eq!((plan.story_state.as_str(), plan.tasks.len()), ("READY_FOR_PLANNING", 0));

    let expected = [("output-parser done -", 3), ("prompt-builder done -", 4)];
    let moved = daemon.events(&before, expected).await;
    assert_eq!(moved.counts("cofferdam_jobs_total", &["backend", "outcome"]), counts([("fleet failed", 3)]));
    assert_eq!(moved.counts("task_derivation_failed", &["reason"]), counts([("agent_failed", 1)]));
}

#[tokio::test]
async fn an_executor_that_was_down_loses_nothing() {
    let world = World::start().await;
    let planning = Planning::start().await;
    let executor = Executor::start(&world, |_| Reply::Text(THREE_TASKS.to_owned())).await;
    let gate = Gate::closed().await;
    let setup = derivation(&world, &planning.address, &planning.address);
    let daemon = executed_at(setup, &gate.address()).start().await;
    for plan in ["p-1", "p-2", "p-3"] {
        world.publish("planning.plan.approved", json!({ "plan_id": plan })).await;
    }
    daemon.says("the job waits").await;
    assert_eq!(executor.asked().len(), 0);
    gate.open(&executor.address);

    let completed = world.wait_stored("task.derivation.completed", 3).await;
    let mut plans: Vec<_> = completed.iter().map(|m| m.payload()["plan_id"].clone()).collect();
    plans.sort_by_key(ToString::to_string);
    assert_eq!(plans, ["p-1", "p-2", "p-3"]);
    world.quiet().await;
    assert_eq!(world.count("task.derivation.failed").await, 0);
}

#[tokio::test]
async fn a_job_that_is_submitted_can_be_asked_about() {
    let world = World::start().await;
    let guest = harness::plugin::Plugin::fixture("submit-job")
        .on("test.in", "")
        .may("executor", &["default"])
        .reports_to("test.seen");
    let _daemon = world.setup().plugin(guest).with("executor.backend", "offline").start().await;
    let mut seen = world.watch("test.seen").await;
    world
        .publish("test.in", json!({ "task_id": "t-1", "prompt": "Description: do it", "role": "DEV" }))
        .await;
    let job = seen.next().await.json()["job"].as_str().expect("a job").to_owned();
    world.wait_stored("agent.response.completed", 1).await;
    world.quiet().await;
    world.publish("test.in", json!({ "status": job })).await;
    assert_eq!(seen.next().await.json()["phase"], "Done");
    world.publish("test.in", json!({ "status": "nobody-knows" })).await;
    assert_eq!(seen.next().await.json()["phase"], "Unknown");
}
