//! A fleet in Python: its services, its people and its agents, with stubs that grpcio-tools generates from `proto/` and with
//! nats-py, against the daemon with all of its brains.

use harness::{
    pipeline::{bundled, executed_at},
    process::{Process, output},
    python::script,
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
