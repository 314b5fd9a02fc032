//! `cofferdam executor`, a process that works jobs beside daemons: how it starts, what it refuses, how it stops, and what it
//! tells in numbers.

use std::{collections::BTreeSet, path::Path, time::Instant};

use harness::{
    endpoint::Endpoint,
    jobs::{Queue, job},
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    world::World,
};
use serde_json::{Value, json};

const MODEL: &str = "m";
const ANSWERS: &str = "agent.response.completed";

/// Workers of one model at this endpoint.
fn workers(world: &World, endpoint: &Endpoint) -> Setup {
    let setup = world.setup();
    asking(setup, endpoint)
}

fn asking(setup: Setup, endpoint: &Endpoint) -> Setup {
    setup
        .with("executor.backend", "queue")
        .with("executor.model", MODEL)
        .with("executor.endpoints.one.url", endpoint.url())
}

async fn submit(world: &World, own: &str, prompt: &str) {
    let queue = Queue::new("shop", MODEL);
    let announced = world.jetstream.get_stream("COFFERDAM").await.expect("our stream");
    let place = format!("cd.u.shop.normal.{}", queue.id("x").split('_').nth(2).expect("a model"));
    if announced.get_last_raw_message_by_subject(&place).await.is_err() {
        queue.open(&world.jetstream).await;
    }
    queue.submit(&world.jetstream, own, &job(own, MODEL, prompt)).await.expect("a stored job");
}

/// The tasks that were answered, sorted.
async fn answered(world: &World, count: usize) -> Vec<String> {
    world.wait_stored(ANSWERS, count).await;
    let answers = world.stored(ANSWERS).await;
    let task =
        |answer: &harness::world::Message| answer.payload()["task_id"].as_str().expect("a task").to_owned();
    let mut tasks: Vec<String> = answers.iter().map(task).collect();
    tasks.sort();
    tasks
}

#[tokio::test]
async fn it_says_when_it_takes_jobs_and_works_them_until_it_is_told_to_stop() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let mut worker = workers(&world, &endpoint).start_worker().await;
    assert_eq!(worker.bus(), "nats");
    assert_eq!(worker.health("/health/ready").await, (200, "ready\n".to_owned()));
    let (status, body) = worker.health("/health").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["ready"], &body["plugins"]), (200, &json!(true), &json!([])));
    for number in 0..3 {
        submit(&world, &format!("t{number}"), &format!("say {number}")).await;
    }
    assert_eq!(answered(&world, 3).await, ["t0", "t1", "t2"]);
    worker.stop().await;
    assert_eq!(endpoint.seen().await.requests, 3);
}

#[tokio::test]
async fn what_is_worked_when_it_is_told_to_stop_comes_to_its_end() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let mut worker = workers(&world, &endpoint).start_worker().await;
    submit(&world, "held", "!hold").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    worker.terminate();
    worker.says("draining").await;
    assert!(worker.wait_ready(503).await.contains("draining"));
    // It is for others from now on.
    submit(&world, "later", "say later").await;
    endpoint.release().await;
    let status = worker.end().await;
    assert!(status.success(), "{status}");
    assert_eq!(answered(&world, 1).await, ["held"]);
    assert_eq!(endpoint.seen().await.requests, 1);
}

#[tokio::test]
async fn what_outlives_the_drain_is_anothers_at_once() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = workers(&world, &endpoint).with("dispatch.drain", "300ms").with("executor.lease", "10m");
    let mut first = setup.start_worker().await;
    submit(&world, "held", "!hold").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    let _second = setup.start_worker().await;
    let began = Instant::now();
    first.stop().await;
    first.says("the drain time is over").await;
    // Its request is dropped, and the other's comes long before the lease is over.
    endpoint.sees("the job once more", |seen| seen.requests == 2 && seen.gone == 1).await;
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    endpoint.release().await;
    assert_eq!(answered(&world, 1).await, ["held"]);
    assert_eq!(endpoint.seen().await.requests, 2);
}

#[tokio::test]
async fn a_bus_that_is_away_is_waited_for() {
    let (mut world, endpoint) = (World::start().await, Endpoint::start().await);
    let mut worker = workers(&world, &endpoint).start_worker().await;
    submit(&world, "held", "!hold").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    world.nats.stop().await;
    assert!(worker.wait_ready(503).await.contains("the bus is out of reach"));
    endpoint.release().await;
    endpoint.sees("the end of its request", |seen| seen.open == 0).await;
    world.nats.up().await;
    worker.wait_ready(200).await;
    assert_eq!(answered(&world, 1).await, ["held"]);
    assert_eq!(endpoint.seen().await.requests, 1, "the answer was kept");
    worker.stop().await;
}

#[tokio::test]
async fn who_asks_twice_is_not_kept_waiting() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let mut worker = workers(&world, &endpoint).start_worker().await;
    submit(&world, "held", "!hold").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    worker.terminate();
    worker.says("draining").await;
    worker.terminate();
    assert_eq!(worker.end().await.code(), Some(130));
}

#[tokio::test]
async fn beside_a_worker_the_daemon_leaves_the_jobs_of_endpoints_alone() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let daemon = workers(&world, &endpoint).start().await;
    submit(&world, "t", "say something").await;
    assert_eq!(daemon.health("/health/ready").await.0, 200);
    let stream = world.jetstream.get_stream("COFFERDAM").await.expect("our stream");
    let durables: Vec<String> =
        futures_util::TryStreamExt::try_collect(stream.consumer_names()).await.expect("names");
    assert!(durables.iter().all(|name| !name.starts_with("cofferdam-jobs")), "{durables:?}");
    assert_eq!(endpoint.seen().await.requests, 0);
    let _worker = workers(&world, &endpoint).start_worker().await;
    assert_eq!(answered(&world, 1).await, ["t"]);
}

#[tokio::test]
async fn a_daemon_with_a_bus_of_its_own_works_them_itself() {
    let endpoint = Endpoint::start().await;
    let submitter = Plugin::fixture("submit-job")
        .on("cofferdam.story.in", "")
        .may("executor", &["*"])
        .reports_to("cofferdam.story.seen");
    let daemon = asking(Setup::local(), &endpoint).plugin(submitter).start().await;
    let task = json!({ "task_id": "t", "prompt": "say something", "role": "DEV" });
    daemon.publish("cofferdam.story.in", task.to_string()).await;
    daemon.wait_stored(ANSWERS, 1).await;
    assert_eq!(endpoint.seen().await.requests, 1);
}

async fn refused(setup: &Setup) -> String {
    let output = setup.tell(&["executor"]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty(), "nothing is ready");
    told
}

#[tokio::test]
async fn an_embedded_bus_is_refused_with_the_reason() {
    let endpoint = Endpoint::start().await;
    let setup = asking(Setup::local(), &endpoint);
    let told = refused(&setup).await;
    assert!(told.contains("the bus of this configuration is embedded"), "{told}");
    assert!(told.contains("nobody but its daemon reaches it, and that works the jobs itself"), "{told}");
    assert!(told.contains("with [bus] nats = \"nats://127.0.0.1:4222\" (or NATS_URL)"), "{told}");
    assert!(!setup.folder().join(".cofferdam").exists(), "nothing was begun");
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_told_at_once_and_what_is_not_there_too() {
    let world = World::start().await;
    let told = refused(&world.setup()).await;
    assert!(told.contains("there is no [executor] in this configuration; add it"), "{told}");
    let faulty = world
        .setup()
        .with("executor.backend", "queue")
        .with("executor.lease", "never")
        .with("executor.endpoints.one.url", "gpu");
    let told = refused(&faulty).await;
    for fault in [
        "2 faults in the configuration:",
        "executor.lease is \"never\"",
        "executor.endpoints.one.url is \"gpu\"",
    ] {
        assert!(told.contains(fault), "{fault}\n{told}");
    }
    let distrustful = world.setup();
    std::fs::write(distrustful.folder().join("ca.pem"), "no certificate").expect("a file");
    let distrustful = distrustful
        .with("executor.backend", "queue")
        .with("executor.endpoints.one.url", "https://127.0.0.1:9/v1")
        .with("executor.endpoints.one.ca", "ca.pem");
    let told = refused(&distrustful).await;
    assert!(told.contains("endpoint \"one\"") && !told.contains("connected"), "{told}");
    let checked = distrustful.tell(&["check"]).await;
    assert!(String::from_utf8_lossy(&checked.stdout).contains("endpoint \"one\""), "{checked:?}");
    let nowhere = Setup::new("nats://127.0.0.1:9")
        .with("executor.backend", "queue")
        .with("bus.connect-timeout", "300ms");
    let told = refused(&nowhere).await;
    assert!(told.contains("127.0.0.1:9"), "{told}");
}

#[tokio::test]
async fn all_who_work_a_queue_agree_on_its_lease() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let _worker = workers(&world, &endpoint).start_worker().await;
    submit(&world, "t", "say something").await;
    assert_eq!(answered(&world, 1).await, ["t"]);
    let told = refused(&workers(&world, &endpoint).with("executor.lease", "20s")).await;
    assert!(told.contains("cofferdam-jobs-shop-normal-"), "{told}");
    assert!(told.contains("the same [executor] lease, or stop them and delete the durable with"), "{told}");
}

#[tokio::test]
async fn plugins_are_no_concern_of_a_worker() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = workers(&world, &endpoint);
    drop(setup.tell(&["check"]).await);
    let mut config = std::fs::read_to_string(setup.file()).expect("a configuration");
    config.push_str("\n[plugins.elsewhere]\ncomponent = \"no/such.wasm\"\n");
    std::fs::write(setup.file(), config).expect("a configuration");
    assert!(setup.refused_as_it_is().await.contains("no/such.wasm"), "the daemon has to have it");
    let mut worker = setup.start_worker_as_it_is().await;
    submit(&world, "t", "say something").await;
    assert_eq!(answered(&world, 1).await, ["t"]);
    worker.stop().await;
}

#[tokio::test]
async fn the_stand_in_is_worked_by_a_worker_too() {
    let world = World::start().await;
    let worker = world.setup().with("executor.backend", "offline").start_worker().await;
    submit(&world, "t", "Acceptance criteria:\n- one thing\n").await;
    assert_eq!(answered(&world, 1).await, ["t"]);
    worker.says("a rule-based stand-in").await;
}

/// What the executor registers, from its own source.
fn registered() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/daemon/src/observe");
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).expect("a source");
    let executor = text("executor.rs");
    let names = executor.split('"').filter(|word| word.starts_with("cofferdam_"));
    let mut names: BTreeSet<String> = names.map(str::to_owned).collect();
    let endpoints = text("endpoints.rs");
    let rows = |name: &str| -> Vec<String> {
        let (_, rest) = endpoints.split_once(&format!("const {name}:")).expect("a list");
        let (list, _) = rest.split_once("];").expect("its end");
        let words = list.lines().filter_map(|line| line.trim().strip_prefix("(\""));
        words.filter_map(|word| word.split('"').next()).map(str::to_owned).collect()
    };
    for (of, own) in [("endpoint", "OF_ENDPOINTS"), ("model", "OF_MODELS")] {
        let all = rows("BOTH").into_iter().chain(rows(own));
        names.extend(all.map(|what| format!("cofferdam_executor_{of}_{what}")));
    }
    names
}

#[test]
fn every_number_of_the_executor_is_in_the_manual() {
    let names = registered();
    assert!(names.len() >= 30, "{names:?}");
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let missing: Vec<_> = names.iter().filter(|name| !manual.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_number_of_the_executor_moves() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = workers(&world, &endpoint)
        .with("executor.lease", "2s")
        .with("executor.repeat", "unknown")
        .with("executor.stream-tokens", true)
        .with("executor.endpoints.one.concurrency", 1)
        .with("executor.endpoints.gone.concurrency", 1)
        .with("executor.cache.ttl", "1h")
        .with("executor.plugins.shop.tokens-per-hour", 1_000_000)
        // Nobody is there: its breaker opens.
        .with("executor.endpoints.gone.url", "http://127.0.0.1:9/v1");
    let mut killed = setup.start_worker().await;
    submit(&world, "held", "!hold").await;
    endpoint.sees("the job", |seen| seen.open == 1).await;
    // Others know of it by then.
    wait_for("the worker's report of the job", async || {
        let reports = world.stored("cd.w.>").await;
        reports.iter().any(|report| String::from_utf8_lossy(&report.data).contains("_held")).then_some(())
    })
    .await;
    killed.kill().await;
    let worker = setup.start_worker().await;
    endpoint.sees("the job once more", |seen| seen.requests == 2).await;
    let jobs = ["same", "same", "!500-once", "!no-usage", "!empty", "!hold", "!hold", "!hold"];
    for (number, prompt) in jobs.iter().enumerate() {
        submit(&world, &format!("t{number}"), prompt).await;
    }
    let expected: BTreeSet<String> = registered();
    // These are of what waits.
    let held = ["cofferdam_jobs_queued", "cofferdam_executor_model_requests_waiting"];
    let mut moved = BTreeSet::new();
    let all = wait_for("every number to move", async || {
        moved.extend(worker.scrape().await.nonzero());
        if held.iter().all(|name| moved.contains(*name)) {
            endpoint.release().await;
        }
        expected.is_subset(&moved).then_some(())
    });
    drop(tokio::time::timeout(std::time::Duration::from_secs(40), all).await);
    let still: Vec<_> = expected.difference(&moved).collect();
    assert!(still.is_empty(), "registered, but nothing moves them: {still:?}");
}
