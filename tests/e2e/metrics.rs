//! The admin port: health for machines and people, and metrics of which each one moves for a reason.

use std::{collections::BTreeSet, path::Path, time::Duration};

use fleet_proto::workflow::v1::{
    GetWorkflowStateRequest, workflow_orchestration_service_client::WorkflowOrchestrationServiceClient,
};
use harness::{
    counting::{self, Counting, Reply},
    fleet::Fleet,
    metrics::counts,
    pipeline::pipeline,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    wait::wait_for,
    world::World,
};
use serde_json::{Value, json};

#[tokio::test]
async fn health_tells_live_from_ready_and_names_the_plugins() {
    let world = World::start().await;
    let plugin = Plugin::fixture("echo").on("test.in", "").reports_to("test.seen");
    let daemon = world.setup().plugin(plugin).start().await;
    assert_eq!(daemon.health("/health/live").await, (200, "live\n".to_owned()));
    assert_eq!(daemon.health("/health/ready").await, (200, "ready\n".to_owned()));
    let (status, body) = daemon.health("/health").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["live"], &body["ready"]), (200, &json!(true), &json!(true)));
    assert_eq!(body["reasons"], json!([]));
    let plugin = &body["plugins"][0];
    assert_eq!((&plugin["name"], &plugin["version"]), (&json!("echo"), &json!("0.1.0")));
    assert_eq!(plugin["digest"].as_str().map(str::len), Some(64));
    assert_eq!(daemon.health("/nothing").await.0, 404);
}

/// The metrics that the daemon registers, from its own source: a scrape shows only those that were touched.
fn registered() -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/daemon/src/observe/metrics.rs");
    let text = std::fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let quoted = text.split('"').filter(|word| word.starts_with("cofferdam_"));
    quoted
        .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(str::to_owned)
        .collect()
}

/// The metrics that bundled plugins declare.
fn declared(plugins: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for plugin in plugins {
        let file = harness::guests::bundled(plugin).with_extension("toml");
        let manifest: toml::Table = std::fs::read_to_string(file).expect("a manifest").parse().expect("TOML");
        let metrics = manifest.get("metrics").and_then(toml::Value::as_table);
        names.extend(metrics.into_iter().flat_map(|m| m.keys().cloned()));
    }
    names
}

/// Sets `waiting` for each queue, and counts itself in `seen`.
fn gauges() -> Plugin {
    Plugin::fixture("gauge")
        .on("test.gauge", "order-key = [\"/key\"]")
        .state("gauge")
        .metric("waiting", "kind = \"gauge\"\nhelp = \"How many wait.\"\nlabels = [\"queue\"]")
        .metric("seen", "kind = \"counter\"")
        .reports_to("test.seen")
}

#[tokio::test]
async fn a_gauge_tells_what_the_last_settled_event_set() {
    let world = World::start().await;
    let daemon = world.setup().plugin(gauges()).start().await;
    assert!(!daemon.health("/metrics").await.1.contains("\nwaiting"), "nobody has set it");
    let waiting = |scrape: &harness::metrics::Scrape| scrape.counts("waiting", &["queue"]);
    let went = async |event: Value, seen: f64| {
        world.publish("test.gauge", event).await;
        wait_for("the event to be settled", async || {
            let scrape = daemon.scrape().await;
            (scrape.sum("seen", &[]) == seen).then_some(scrape)
        })
        .await
    };
    // Of several values of a series the last counts; one that is no number is passed over.
    let sets = json!([["a", 7], ["b", 2], ["a", 5], ["a", "none"]]);
    let scrape = went(json!({ "key": "k", "sets": sets }), 1.0).await;
    assert_eq!(waiting(&scrape), counts([("a", 5), ("b", 2)]));
    let set_at = scrape.sum("cofferdam_gauge_set_timestamp_seconds", &[("metric", "waiting")]);
    assert!(set_at > 1.7e9, "{set_at}");
    let stored = world.wait_stored("test.seen", 1).await;
    assert_eq!(stored[0].json()["undeclared"], true, "a counter is no gauge");

    // What such a run counts stays; what it says of how things are does not.
    let scrape = went(json!({ "key": "k", "sets": [["a", 100]], "end": "reject" }), 2.0).await;
    assert_eq!(waiting(&scrape), counts([("a", 5), ("b", 2)]));
    let scrape = went(json!({ "key": "k", "sets": [["a", 0]] }), 3.0).await;
    assert_eq!(waiting(&scrape), counts([("a", 0), ("b", 2)]));
    let (_, text) = daemon.health("/metrics").await;
    assert!(text.contains("# HELP waiting How many wait.\n# TYPE waiting gauge\n"), "{text}");
}

#[tokio::test]
async fn every_metric_moves() {
    let bundled = ["prompt-builder", "output-parser", "dependency-analyzer", "workflow-router"];
    let expected: BTreeSet<String> = registered().into_iter().chain(declared(&bundled)).collect();
    // One that is new and forgotten here would pass unseen if the source were read wrongly.
    assert!(registered().len() >= 13, "{:?}", registered());

    let world = World::start().await;
    let fleet = Fleet::start(&world).await;
    let held = Planning::held().await;
    // A call that is repeated, and recalled by the next attempt.
    let counting = Counting::start().await;
    counting.next("Once", [Reply::Refuse(tonic::Code::Unavailable)]);
    let once = format!("{}/Once", counting::SERVICE);
    let method = format!("held/{SERVICE}/GetPlanContext");
    let slow = Plugin::fixture("sleep-in-rpc")
        .named("slow")
        .on("test.slow", "order-key = [\"/key\"]")
        .state("shared")
        .may("rpc", &[&method])
        .reports_to("test.called");
    let setup = pipeline(&world, &fleet)
        .plugin(slow)
        .plugin(gauges())
        .plugin(Plugin::fixture("log-flood").on("test.flood", "").reports_to("test.flooded"))
        .plugin(Plugin::fixture("reject").on("test.reject", "").reports_to("test.seen"))
        .plugin(
            Plugin::fixture("echo")
                .on("test.echo", "")
                .may("publish", &["test.seen"])
                .set("to", "test.denied"),
        )
        .plugin(
            Plugin::fixture("calls")
                .on("test.call", "backoff = \"50ms\"")
                .may("rpc", &[&format!("counting/{once}")])
                .reports_to("test.seen"),
        )
        .upstream("counting", &counting.address)
        .with("upstreams.counting.once", vec![once.clone()])
        .upstream("held", &held.address)
        .with("upstreams.held.timeout", "60s")
        .with("grpc.listen", vec!["127.0.0.1:0"]);
    let daemon = setup.start().await;
    let counter = Plugin::fixture("state-counter").on("test.count", "order-key = [\"/key\"]");
    let other = world.setup().plugin(counter.state("shared").reports_to("test.seen"));
    let _other_host = other.start().await;

    // Two hosts and one cell: a conflict, and an event in flight to be seen.
    let call = json!({ "key": "k", "upstream": "held", "method": format!("{SERVICE}/GetPlanContext") });
    world.publish("test.slow", call).await;
    held.wait_calls(1).await;
    let mut moved = daemon.scrape().await.nonzero();
    world.publish("test.count", json!({ "key": "k" })).await;
    world.wait_stored("test.seen", 1).await;
    held.release();
    // A derivation that succeeds, a repeated task, and a derivation that fails.
    let plan_id = fleet.plan("Checkout").await;
    fleet.approve(&plan_id).await;
    let tasks = fleet.planned(&plan_id).await;
    let again = json!({ "task_id": tasks[0].task_id, "story_id": tasks[0].story_id, "title": "Told twice" });
    world.wait_stored("workflow.task.assigned", tasks.len()).await;
    world.publish("planning.task.created", again).await;
    let work = json!({ "task_id": tasks[0].task_id, "action": "approve_tests", "actor_role": "developer" });
    world.publish("agent.work.completed", work).await;
    world.publish("planning.plan.approved", json!({ "plan_id": "nobody" })).await;
    let call = json!({ "upstream": "counting", "method": once });
    world.publish("test.call", json!({ "calls": [call], "retries": 1 })).await;
    world.publish("test.gauge", json!({ "key": "k", "sets": [["a", 1]] })).await;
    for subject in ["test.flood", "test.reject", "test.echo"] {
        world.publish(subject, "{}").await;
    }
    world.wait_stored("task.derivation.failed", 1).await;
    world.wait_stored("test.called", 1).await;
    world.quiet().await;

    // A client asks for a task.
    let mut client = WorkflowOrchestrationServiceClient::connect(format!("http://{}", daemon.grpc()))
        .await
        .expect("a connection");
    let request = GetWorkflowStateRequest { task_id: tasks[0].task_id.clone() };
    client.get_workflow_state(request).await.expect("an answer");

    // All is settled; the last count may be a moment late.
    let all = wait_for("every metric to move", async || {
        moved.extend(daemon.scrape().await.nonzero());
        expected.is_subset(&moved).then_some(())
    });
    drop(tokio::time::timeout(Duration::from_secs(5), all).await);
    let still: Vec<_> = expected.difference(&moved).collect();
    assert!(still.is_empty(), "registered, but nothing moves them: {still:?}");
}
