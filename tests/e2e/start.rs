//! Starting: what is wrong is told at once, with the file, the line and the remedy, before anything is bound; and what
//! stands in the way later is told with its address.

use std::{net::TcpListener, path::PathBuf, time::Duration};

use async_nats::jetstream::{
    consumer,
    stream::{DiscardPolicy, RetentionPolicy, StorageType},
};
use harness::{nats::Server, plugin::Plugin, setup::Setup, world::World};

/// Nobody listens there.
const NOWHERE: &str = "nats://127.0.0.1:9";

fn echo() -> Plugin {
    Plugin::fixture("echo").on("test.in", "").reports_to("test.seen")
}

#[tokio::test]
async fn all_faults_of_a_config_are_told_at_once_with_line_and_remedy() {
    let setup = Setup::new(NOWHERE);
    let config = "\
[bus]
nats = \"127.0.0.1:4222\"
[admin]
listen = \"localhost\"
[upstreams.planning]
adress = \"http://127.0.0.1:50051\"
timeout = \"five seconds\"
[executor]
backend = \"gpu\"
[plugins.echo]
component = \"no/such/file.wasm\"
";
    std::fs::write(setup.file(), config).expect("a configuration");
    let told = setup.refused_as_it_is().await;
    let file = setup.file().display().to_string();
    let folder = setup.folder().display().to_string();
    let expected = [
        (
            2,
            "bus.nats has \"127.0.0.1:4222\", which is not a NATS URL; write one such as \"nats://127.0.0.1:4222\"",
        ),
        (4, "admin.listen is \"localhost\", which is not an address with a port such as \"127.0.0.1:8080\""),
        (5, "upstreams.planning.address is missing; add address = \"http://127.0.0.1:50051\""),
        (6, "upstreams.planning.adress is not a known key; did you mean \"address\"?"),
        (7, "upstreams.planning.timeout is \"five seconds\", which is not a duration"),
        (9, "executor.backend is \"gpu\"; known here: offline, fleet"),
        (11, "no/such/file.wasm\" is not a file; build the plugin, or correct the path"),
    ];
    for (line, message) in expected {
        let prefix = format!("{file}:{line}: ");
        let found =
            told.lines().any(|l| l.trim_start().strip_prefix(&prefix).is_some_and(|m| m.contains(message)));
        assert!(found, "line {line}: {message}\n--- was told\n{told}");
    }
    assert!(told.contains(" faults in the configuration:"), "{told}");
    assert!(!std::path::Path::new(&folder).join(".cofferdam").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_missing_config_is_named() {
    let setup = Setup::new(NOWHERE);
    let told = setup.refused_as_it_is().await;
    assert!(told.contains(&format!("{}: can't be read", setup.file().display())), "{told}");
}

/// A component from a text, in a setup of its own.
fn made(setup: &Setup, name: &str, bytes: &[u8]) -> PathBuf {
    let file = setup.folder().join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).expect("a component");
    file
}

#[tokio::test]
async fn files_that_are_no_component_are_told_together_and_before_nats_is_asked() {
    let setup = Setup::new(NOWHERE);
    let script = made(&setup, "script", b"#!/bin/sh\n");
    let module = made(&setup, "module", &wat::parse_str("(module)").expect("a module"));
    let newer = "(component (@custom \"cofferdam:wit\" \"0.9.0\"))";
    let newer = made(&setup, "newer", &wat::parse_str(newer).expect("a component"));
    let foreign = "(component (import \"acme:db/query@1.0.0\" (instance)))";
    let foreign = made(&setup, "foreign", &wat::parse_str(foreign).expect("a component"));
    let mut setup = setup;
    for (name, file) in [("script", &script), ("module", &module), ("newer", &newer), ("foreign", &foreign)] {
        setup = setup.plugin(Plugin::of(name, file.clone()));
    }
    let told = setup.refused().await;
    assert!(told.contains("4 of the plugins can't run here"), "{told}");
    for (file, message) in [
        (&script, "not a WebAssembly binary: it begins with [23, 21, 2f, 62]"),
        (&module, "a core WebAssembly module, not a component"),
        (&newer, "built for cofferdam:plugin@0.9.0; this host knows 0.1"),
        (&foreign, "imports acme:db/query@1.0.0"),
    ] {
        let line = told.lines().find(|line| line.contains(&format!("{:?}", file.display())));
        assert!(line.is_some_and(|line| line.contains(message)), "{message}\n--- was told\n{told}");
    }
}

#[tokio::test]
async fn an_import_that_nothing_grants_is_refused_and_the_printed_line_makes_it_start() {
    let world = World::start().await;
    let plugin = Plugin::fixture("state-counter")
        .on("test.in", "order-key = [\"/key\"]")
        .wants_state("state-counter")
        .reports_to("test.seen");
    let mut setup = world.setup().plugin(plugin);
    let told = setup.refused().await;
    assert!(told.contains("imports \"state\" and is granted nothing of that kind"), "{told}");
    let line = told.split("[plugins.state-counter.grants]: ").nth(1).expect("a line to paste");
    let line = line.lines().next().expect("a line");
    assert_eq!(line, "state = [\"state-counter\"]");
    setup.paste_grant("state-counter", line);

    let _daemon = setup.start().await;
    let mut seen = world.watch("test.seen").await;
    world.publish("test.in", r#"{"key": "a"}"#).await;
    assert_eq!(seen.next().await.json()["count"], 1);
}

#[tokio::test]
async fn an_admin_port_in_use_is_named_before_anything_is_compiled() {
    let world = World::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let setup = world.setup().with("admin.listen", address.as_str());
    let cache = setup.folder().join("compiled");
    let told = setup.with("sandbox.cache", cache.to_str().expect("text")).plugin(echo()).refused().await;
    let expected = format!(
        "the admin port {address} can't be bound; free it, or set [admin] listen (or COFFERDAM_LISTEN) to another"
    );
    assert!(told.contains(&expected), "{told}");
    assert!(!told.contains("plugin ready"), "{told}");
}

#[tokio::test]
async fn a_file_where_a_directory_is_to_be_is_named_with_the_remedy_and_the_reason_once() {
    let setup = Setup::local();
    let (data, cache) = (setup.folder().join(".cofferdam"), setup.folder().join("compiled"));
    std::fs::write(&data, "x").expect("a file");
    let told = setup.refused().await;
    let expected = format!(
        "{data:?} is to be the directory of the embedded bus, and is a file; move it away, or choose"
    );
    assert!(told.contains(&expected), "{told}");

    std::fs::remove_file(&data).expect("the file");
    std::fs::write(&cache, "x").expect("a file");
    let told = setup.with("sandbox.cache", cache.to_str().expect("text")).refused().await;
    let expected = format!("the directory {cache:?} of compiled components can't be used: ");
    assert!(told.contains(&expected) && told.contains("set [sandbox] cache to another"), "{told}");
    assert_eq!(told.matches("os error").count(), 1, "{told}");
}

#[tokio::test]
async fn a_nats_that_is_not_there_is_told_with_its_url() {
    let url = "nats://user:secret@127.0.0.1:9";
    let told = Setup::new(url).with("bus.connect-timeout", "1s").refused().await;
    assert!(told.contains("NATS at nats://127.0.0.1:9: "), "{told}");
    assert!(told.contains("start nats-server (2.12 or newer, with -js) there, or correct the URL"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[tokio::test]
async fn a_nats_without_jetstream_is_told_what_it_lacks() {
    let nats = Server::start_bare("").await;
    let told = Setup::new(&nats.url()).refused().await;
    assert!(told.contains(&format!("JetStream is not enabled at {}", nats.url())), "{told}");
    assert!(told.contains("start nats-server with -js"), "{told}");
}

#[tokio::test]
async fn a_stream_that_differs_is_left_alone_and_both_sides_are_shown() {
    let world = World::start().await;
    world.stream("PLANNING_EVENTS", "planning.plan.*").await;
    let told = world.setup().refused().await;
    let expected = "stream \"PLANNING_EVENTS\" exists with other settings: it stores planning.plan.*; ours is to store \
                    planning.>";
    assert!(told.contains(expected), "{told}");
}

#[tokio::test]
async fn a_durable_that_differs_is_left_alone_and_both_sides_are_shown() {
    let world = World::start().await;
    let stream = world.jetstream.get_stream("TEST").await.expect("a stream");
    let theirs = consumer::pull::Config {
        durable_name: Some("cofferdam-echo-test-in".to_owned()),
        filter_subject: "test.other".to_owned(),
        ..Default::default()
    };
    stream.create_consumer(theirs).await.expect("a durable");
    let told = world.setup().plugin(echo()).refused().await;
    assert!(told.contains("durable \"TEST/cofferdam-echo-test-in\" exists with other settings"), "{told}");
    assert!(told.contains("its filter is test.other, ours is to be test.in"), "{told}");
}

#[tokio::test]
async fn a_subject_that_no_stream_stores_is_told_with_its_plugin() {
    let world = World::start().await;
    let told = world.setup().plugin(echo().on("elsewhere.in", "")).refused().await;
    assert!(
        told.contains("plugin \"echo\" subscribes to \"elsewhere.in\", which no stream stores"),
        "{told}"
    );
}

#[tokio::test]
async fn a_stream_of_another_name_that_covers_the_subjects_is_used() {
    let world = World::start().await;
    world.stream("everything_planned", "planning.>").await;
    let plugin = echo().on("planning.plan.approved", "");
    let daemon = world.setup().plugin(plugin).start().await;
    let line = daemon.says("an existing stream covers the subjects").await;
    assert_eq!(line["stream"], "everything_planned");
    let mut seen = world.watch("test.seen").await;
    world.publish("planning.plan.approved", "hello").await;
    assert_eq!(&seen.next().await.data[..], b"hello");
    // All ten of the contract are covered, and ours.
    for subject in [
        "planning.x",
        "context.x",
        "orchestration.x",
        "agent.cmd.x",
        "agent.response.x",
        "agent.work.x",
        "workflow.x",
        "task.derivation.x",
        "agent.results.x",
        "vllm.streaming.x",
        "cofferdam.x",
    ] {
        assert_eq!(world.count(subject).await, 0, "{subject}");
    }
}

#[tokio::test]
async fn contract_2_2_the_fleets_streams_are_created_with_its_names_subjects_and_limits() {
    const HOURS: u64 = 3_600;
    let world = World::start().await;
    let _daemon = world.setup().plugin(echo()).start().await;
    // Name, one subject of ours or all of theirs, seconds, messages; -1 is what the server says for no limit.
    for (name, subject, age, most) in [
        ("PLANNING_EVENTS", "planning.>", 30 * 24 * HOURS, 1_000_000),
        ("CONTEXT", "context.>", 7 * 24 * HOURS, 100_000),
        ("ORCHESTRATOR_EVENTS", "orchestration.>", 7 * 24 * HOURS, 50_000),
        ("AGENT_COMMANDS", "agent.cmd.>", HOURS, 10_000),
        ("AGENT_RESPONSES", "agent.response.>", HOURS, 10_000),
        ("AGENT_WORK", "agent.work.>", 2 * HOURS, 50_000),
        ("WORKFLOW_EVENTS", "workflow.>", 7 * 24 * HOURS, 100_000),
        ("task_derivation", "task.derivation.>", 7 * 24 * HOURS, 100_000),
        ("AGENT_RESULTS", "agent.results.>", HOURS, -1),
        ("VLLM_STREAMING", "vllm.streaming.>", 600, -1),
        ("COFFERDAM_EVENTS", "cofferdam.derivation.>", 7 * 24 * HOURS, -1),
        ("COFFERDAM_ORCHESTRATION", "cofferdam.queue.>", 7 * 24 * HOURS, -1),
    ] {
        let stream = world.jetstream.get_stream(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let made = &stream.cached_info().config;
        if name.starts_with("COFFERDAM_") {
            assert!(made.subjects.iter().any(|stored| stored == subject), "{made:?}");
        } else {
            assert_eq!(made.subjects, [subject], "{name}");
        }
        assert_eq!((made.max_age, made.max_messages), (Duration::from_secs(age), most), "{name}");
        let kept = (made.retention, made.discard, made.storage, made.num_replicas);
        assert_eq!(kept, (RetentionPolicy::Limits, DiscardPolicy::Old, StorageType::File, 1), "{name}");
    }
}

#[tokio::test]
async fn a_nats_that_goes_and_comes_back_costs_readiness_and_no_event() {
    let mut world = World::start().await;
    let mut daemon = world.setup().plugin(echo()).start().await;
    let before = daemon.scrape().await;
    assert_eq!(daemon.scrape().await.sum("cofferdam_bus_up", &[]), 1.0);
    world.publish("test.in", "before").await;
    world.wait_stored("test.seen", 1).await;

    world.nats.stop().await;
    let told = daemon.wait_ready(503).await;
    assert!(told.contains("the bus is out of reach") && told.contains(&world.nats.url()), "{told}");
    assert_eq!(daemon.health("/health/live").await.0, 200);
    assert_eq!(daemon.scrape().await.sum("cofferdam_bus_up", &[]), 0.0);

    world.nats.up().await;
    daemon.wait_ready(200).await;
    assert_eq!(daemon.scrape().await.sum("cofferdam_bus_up", &[]), 1.0);
    world.publish("test.in", "after").await;
    let seen = world.wait_stored("test.seen", 2).await;
    assert_eq!(seen.iter().map(|m| &m.data[..]).collect::<Vec<_>>(), [&b"before"[..], b"after"]);
    daemon.moved("both events", &before, |m| m.events().get("echo done -") == Some(&2)).await;
    daemon.stop().await;
}
