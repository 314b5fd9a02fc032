//! A fleet in Python: its services, its people and its agents, with stubs that grpcio-tools generates from `proto/` and with
//! nats-py, against the daemon with all of its brains, and against the executor.

use harness::{
    endpoint::Endpoint,
    pipeline::{bundled, executed_at},
    planning::Planning,
    plugin::Plugin,
    process::{Process, output},
    python::script,
    setup::Setup,
    world::World,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_fleet_in_python_takes_a_story_from_its_first_draft_to_testing() {
    let world = World::start().await;
    let nats = world.nats.url();
    // Whoever publishes first finds its stream.
    for (name, subjects) in [("PLANNING_EVENTS", "planning.>"), ("AGENT_RESPONSES", "agent.response.>")] {
        world.stream(name, subjects).await;
    }
    let mut serve = script("services.py");
    serve.args(["--nats", &nats]);
    let mut services = Process::start("services.py", serve);
    let log = services.log();
    let Some(addresses) = services.ready().await else { panic!("services.py ended: {}", log.text()) };
    let address = |name: &str| addresses[name].as_str().expect("an address").to_owned();

    let mut setup =
        world.setup().upstream("planning", &address("planning")).upstream("context", &address("context"));
    for plugin in
        ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router", "story-lifecycle"]
    {
        setup = setup.plugin(bundled(plugin));
    }
    let setup = executed_at(setup, &address("ray")).with("grpc.listen", vec!["127.0.0.1:0"]);
    let daemon = setup.start().await;

    let mut drive = script("drive.py");
    drive.args(["--nats", &nats, "--grpc", daemon.grpc()]);
    let driven = output("drive.py", drive).await;
    let told = String::from_utf8_lossy(&driven.stderr);
    assert!(
        driven.status.success(),
        "{told}\nthe services: {}\nthe daemon: {}",
        log.text(),
        daemon.log().text()
    );
    let result: Value = serde_json::from_slice(&driven.stdout).expect("a result");
    assert_eq!(result, json!({"story": "TESTING", "tasks": 4}));
    assert_eq!(world.count("task.derivation.failed").await, 0);
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

/// Drives an executor as a Python client; gives the responses that it heard of.
async fn driven(world: &World, executor: &harness::daemon::Daemon, admin: bool) -> Value {
    let mut drive = script("executor.py");
    drive.args(["--nats", &world.nats.url(), "--grpc", executor.executor()]);
    if admin {
        drive.args(["--admin", executor.admin()]);
    }
    let driven = output("executor.py", drive).await;
    let told = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{told}\nthe executor: {}", executor.log().text());
    serde_json::from_slice(&driven.stdout).expect("a result")
}

#[tokio::test]
async fn contract_3_a_client_in_python_submits_polls_and_hears_of_each_answer_once() {
    let world = World::start().await;
    let setup =
        world.setup().with("executor.backend", "offline").with("executor.grpc.listen", vec!["127.0.0.1:0"]);
    let daemon = setup.start().await;
    assert_eq!(driven(&world, &daemon, false).await, json!({"responses": 5}));
}

#[tokio::test]
async fn a_client_in_python_hears_of_failures_and_cancellations_from_workers_of_the_queue() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = world
        .setup()
        .with("executor.backend", "queue")
        .with("executor.model", "m")
        .with("executor.endpoints.one.url", endpoint.url())
        .with("executor.grpc.listen", vec!["127.0.0.1:0"]);
    let worker = setup.start_worker().await;
    assert_eq!(driven(&world, &worker, true).await, json!({"responses": 7}));
}

fn councils(setup: Setup, planning: &Planning) -> Setup {
    setup
        .upstream("planning", &planning.address)
        .with("executor.backend", "offline")
        .with("grpc.listen", vec!["127.0.0.1:0"])
        .with("upstreams.scoring.address", "self")
        .plugin(bundled("council"))
        .plugin(Plugin::bundled("council-scoring"))
}

#[tokio::test]
async fn contract_3_a_gateway_in_python_with_the_fleets_own_definition_deliberates_and_hears_of_each_end_once()
 {
    let (world, planning) = (World::start().await, Planning::start().await);
    let daemon = councils(world.setup(), &planning).start().await;
    let mut drive = script("orchestrator.py");
    drive.args(["--nats", &world.nats.url(), "--grpc", daemon.grpc()]);
    let driven = output("orchestrator.py", drive).await;
    let told = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{told}\nthe daemon: {}", daemon.log().text());
    let result: Value = serde_json::from_slice(&driven.stdout).expect("a result");
    assert_eq!(result, json!({"completed": 6}));
    assert_eq!(world.count("cofferdam.dead.>").await, 0);
}

#[tokio::test]
async fn a_scoring_stage_in_python_stands_in_the_place_of_ours() {
    let (world, planning) = (World::start().await, Planning::start().await);
    let mut judge = Process::start("judge.py", script("judge.py"));
    let log = judge.log();
    let Some(ready) = judge.ready().await else { panic!("judge.py ended: {}", log.text()) };
    let address = ready["listen"].as_str().expect("an address");
    let daemon = councils(world.setup(), &planning).upstream("scoring", address).start().await;
    let answers = [("a", "This is the longer of the two."), ("b", "This is short.")];
    for (agent, text) in answers {
        let answer = json!({"task_id": "t", "agent_id": agent, "num_agents": 2, "result": {"proposal": text}, "story_id": "S"});
        world.publish("agent.response.completed", answer).await;
    }
    let told = world.wait_stored("orchestration.deliberation.completed", 1).await[0].payload();
    assert_eq!(
        (&told["winner_id"], &told["results"][0]["score"].as_f64().is_some_and(|score| score < 1.0)),
        (&json!("b"), &true)
    );
    drop(daemon);
}
