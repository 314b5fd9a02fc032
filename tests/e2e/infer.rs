//! Questions of plugins to models: asked at once and together, answered in time, and paid for once. The endpoint and, with NATS,
//! the worker are processes of their own.

use fleet_proto::bus::v1::StoredMessage;
use harness::{
    daemon::{Daemon, message},
    endpoint::Endpoint,
    metrics::Scrape,
    nats::Server,
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    way_in::body,
    world::World,
};
use serde_json::{Value, json};

use crate::both::{Begin, on_both_buses};

const ASKED: &str = "cofferdam.asked";
const SEEN: &str = "cofferdam.told";

/// A daemon with an endpoint, which does not run yet.
struct Place {
    setup: Setup,
    endpoint: Endpoint,
    _nats: Option<Server>,
    /// Jobs are worked elsewhere.
    works_apart: bool,
}

/// What runs.
struct Running {
    daemon: Daemon,
    _worker: Option<Daemon>,
}

impl Begin for Place {
    async fn on(setup: Setup, nats: Option<Server>) -> Place {
        let endpoint = Endpoint::start().await;
        let setup = asking(setup, &endpoint);
        Place { setup, endpoint, works_apart: nats.is_some(), _nats: nats }
    }
}

fn asking(setup: Setup, endpoint: &Endpoint) -> Setup {
    setup
        .with("executor.backend", "queue")
        .with("executor.model", "m")
        .with("executor.attempts", 1)
        .with("executor.endpoints.one.url", endpoint.url())
        .with("executor.endpoints.one.idle-timeout", "1s")
}

fn guest(name: &str) -> Plugin {
    Plugin::fixture(name).may("executor", &["default"]).reports_to(SEEN)
}

/// Retries without a pause.
fn on_events(plugin: Plugin) -> Plugin {
    plugin.on(ASKED, "backoff = \"10ms\"\nmax-attempts = 5")
}

impl Place {
    async fn with(mut self, plugin: Plugin) -> (Place, Running) {
        self.setup = self.setup.plugin(plugin);
        let running = self.start().await;
        (self, running)
    }

    async fn start(&self) -> Running {
        let daemon = self.setup.start().await;
        let worker = match self.works_apart {
            true => Some(self.setup.start_worker().await),
            false => None,
        };
        Running { daemon, _worker: worker }
    }

    async fn asked(&self) -> u64 {
        self.endpoint.seen().await.requests
    }
}

impl Running {
    async fn tell(&self, instructions: Value) {
        self.daemon.publish(ASKED, instructions).await;
    }

    /// What the guest published last, of so many.
    async fn seen(&self, count: usize) -> Value {
        let all: Vec<StoredMessage> = self.daemon.wait_stored(SEEN, count).await;
        body(&all[count - 1])
    }

    /// Lines of the log that fit.
    fn said(&self, fits: impl Fn(&Value) -> bool) -> usize {
        let lines = self.daemon.log().lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(|line| fits(line)).count()
    }
}

fn is_piece(line: &Value) -> bool {
    message(line) == "a piece"
}

fn texts(seen: &Value) -> Vec<&str> {
    let answers = seen["answers"].as_array().expect("answers");
    answers
        .iter()
        .map(|answer| answer["text"].as_str().or(answer["error"].as_str()).expect("a text"))
        .collect()
}

async fn a_list_is_asked_at_once_and_answered_in_its_order(place: Place) {
    let (place, running) = place.with(on_events(guest("infer"))).await;
    let ask = ["!hold one", "!500 two", "!hold three"]
        .map(|prompt| json!({ "prompt": prompt, "system": "You are terse." }));
    running.tell(json!({ "ask": ask })).await;
    place.endpoint.sees("all three", |seen| seen.requests == 3 && seen.open == 2).await;
    place.endpoint.release().await;
    let seen = running.seen(1).await;
    let texts = texts(&seen);
    assert_eq!((texts[0], texts[2]), ("The answer to: !hold one", "The answer to: !hold three"));
    assert!(texts[1].starts_with("failed, server_error: "), "{texts:?}");
    let first = &seen["answers"][0];
    assert_eq!((&first["finish"], &first["cached"]), (&json!("stop"), &json!(false)));
    assert!(first["tokens"][1].as_u64() > Some(0), "{first}");
    let system = &place.endpoint.seen().await.last["messages"][0];
    assert_eq!((&system["role"], &system["content"]), (&json!("system"), &json!("You are terse.")));
}

async fn a_run_that_comes_again_pays_for_nothing(place: Place) {
    let (place, running) = place.with(on_events(guest("infer"))).await;
    let ask =
        [json!({ "prompt": "same" }), json!({ "prompt": "same" }), json!({ "prompt": "other", "seed": 7 })];
    running.tell(json!({ "ask": ask, "retries": 2 })).await;
    let seen = running.seen(1).await;
    assert_eq!(seen["attempt"], 3);
    assert_eq!(texts(&seen), ["The answer to: same", "The answer to: same", "The answer to: other"]);
    assert_eq!(place.asked().await, 3, "two of them are equal, and two questions all the same");
    // Another event asks for itself.
    running.tell(json!({ "ask": [{ "prompt": "same" }] })).await;
    running.seen(2).await;
    assert_eq!(place.asked().await, 4);
}

async fn what_failed_is_asked_again_by_the_next_run(place: Place) {
    let (place, running) = place.with(on_events(guest("infer"))).await;
    let ask = [json!({ "prompt": "fine" }), json!({ "prompt": "!500-once it" })];
    running.tell(json!({ "ask": ask, "patient": true })).await;
    let seen = running.seen(1).await;
    assert_eq!((&seen["attempt"], texts(&seen)[1]), (&json!(2), "The answer to: !500-once it"));
    let asked = place.endpoint.seen().await.by_prompt;
    assert_eq!((asked["fine"], asked["!500-once it"]), (1, 2));
}

async fn an_event_whose_time_ends_first_finds_the_answer_later(place: Place) {
    // The first run counts, and those that still wait don't.
    let guest = guest("infer").on(ASKED, "backoff = \"10ms\"\nmax-attempts = 2").limit("wall", "500ms");
    let (place, running) = place.with(guest).await;
    running.tell(json!({ "ask": [{ "prompt": "!hold it" }], "patient": true })).await;
    let waits =
        |line: &Value| message(line).starts_with("handed back: ") && message(line).contains("time is over");
    wait_for("two runs that still wait", async || (running.said(waits) >= 2).then_some(())).await;
    place.endpoint.release().await;
    let seen = running.seen(1).await;
    assert_eq!((&seen["attempt"], texts(&seen)[0]), (&json!(2), "The answer to: !hold it"));
    assert_eq!(place.asked().await, 1);
    assert!(running.daemon.stored("cofferdam.dead.>").await.is_empty());
}

async fn an_answer_of_no_use_later_fails_in_time(place: Place) {
    let (_place, running) = place.with(on_events(guest("infer"))).await;
    running.tell(json!({ "ask": [{ "prompt": "!hang on", "timeout": 1 }] })).await;
    let seen = running.seen(1).await;
    assert!(texts(&seen)[0].starts_with("failed, timeout: "), "{seen}");
}

async fn questions_go_with_every_commit_class(place: Place) {
    let (place, running) = place.with(guest("infer").on(ASKED, "commit = \"publish\"")).await;
    running.tell(json!({ "ask": [{ "prompt": "one" }] })).await;
    assert_eq!(texts(&running.seen(1).await), ["The answer to: one"]);
    assert_eq!(place.asked().await, 1);
}

async fn what_is_not_granted_is_not_asked(place: Place) {
    let (place, running) = place.with(on_events(guest("infer"))).await;
    let ask =
        [json!({ "prompt": "x", "model": "large" }), json!({ "prompt": " " }), json!({ "prompt": "fine" })];
    running.tell(json!({ "ask": ask })).await;
    let seen = running.seen(1).await;
    let texts = texts(&seen);
    assert!(texts[0].starts_with("denied: ") && texts[0].contains("\"large\""), "{texts:?}");
    assert!(texts[1].starts_with("invalid: "), "{texts:?}");
    assert_eq!((texts[2], place.asked().await), ("The answer to: fine", 1));
}

async fn tokens_come_while_the_model_is_at_it(place: Place) {
    let (place, running) = place.with(on_events(guest("tokens"))).await;
    running.tell(json!({ "prompt": "!slow story" })).await;
    running.daemon.logged("a piece", is_piece).await;
    assert_eq!(place.endpoint.seen().await.open, 1, "the model is at it");
    let seen = running.seen(1).await;
    let pieces: Vec<&str> =
        seen["pieces"].as_array().unwrap().iter().map(|piece| piece["text"].as_str().unwrap()).collect();
    assert!(pieces.len() > 2, "{pieces:?}");
    let whole = (1..=20).map(|n| format!("word{n} ")).collect::<String>();
    assert_eq!(
        (pieces.concat(), &seen["whole"], &seen["error"]),
        (whole.clone(), &json!(whole), &Value::Null)
    );
}

async fn tokens_that_were_paid_for_come_in_one_piece(place: Place) {
    let (place, running) = place.with(on_events(guest("tokens"))).await;
    running.tell(json!({ "prompt": "!slow story", "retries": 1 })).await;
    let seen = running.seen(1).await;
    assert_eq!(seen["pieces"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["pieces"][0]["text"], seen["whole"]);
    assert!(running.said(is_piece) > 3, "those of the first run among them");
    assert_eq!(place.asked().await, 1);
}

async fn tokens_that_end_badly_say_so(place: Place) {
    let (_place, running) = place.with(on_events(guest("tokens"))).await;
    running.tell(json!({ "prompt": "!hang-midway" })).await;
    let seen = running.seen(1).await;
    assert_eq!(seen["pieces"][0]["text"], "It begins", "{seen}");
    let error = seen["error"].as_str().expect("an error");
    assert!(error.starts_with("failed, hung: "), "{error}");
    assert_eq!(seen["whole"], error);
}

async fn a_stream_that_is_dropped_early_ends_nothing(place: Place) {
    let (place, running) = place.with(on_events(guest("tokens"))).await;
    running.tell(json!({ "prompt": "!slow story", "take": 1 })).await;
    let seen = running.seen(1).await;
    assert_eq!(seen["pieces"].as_array().unwrap().len(), 1);
    assert!(seen["whole"].as_str().unwrap().ends_with("word20 "), "{seen}");
    assert_eq!(place.asked().await, 1);
}

async fn an_instance_that_keeps_a_stream_has_no_other_event(place: Place) {
    let guest = on_events(guest("tokens")).operator("isolation", "batch").limit("concurrency", 1);
    let (_place, running) = place.with(guest).await;
    let before = running.daemon.scrape().await;
    let instances = async || {
        running.daemon.scrape().await.since(&before).sum("cofferdam_instances_total", &[("plugin", "tokens")])
    };
    for (count, leak) in [(1, false), (2, false), (3, true), (4, false)] {
        running.tell(json!({ "prompt": "a word", "leak": leak })).await;
        running.seen(count).await;
        let expected = if count < 4 { 1.0 } else { 2.0 };
        wait_for("the instances", async || (instances().await == expected).then_some(())).await;
    }
}

on_both_buses!(
    a_list_is_asked_at_once_and_answered_in_its_order,
    a_run_that_comes_again_pays_for_nothing,
    what_failed_is_asked_again_by_the_next_run,
    an_event_whose_time_ends_first_finds_the_answer_later,
    an_answer_of_no_use_later_fails_in_time,
    questions_go_with_every_commit_class,
    what_is_not_granted_is_not_asked,
    tokens_come_while_the_model_is_at_it,
    tokens_that_were_paid_for_come_in_one_piece,
    tokens_that_end_badly_say_so,
    a_stream_that_is_dropped_early_ends_nothing,
    an_instance_that_keeps_a_stream_has_no_other_event,
);

#[tokio::test]
async fn a_daemon_that_dies_over_its_question_finds_the_answer() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = asking(world.setup(), &endpoint).plugin(on_events(guest("infer")));
    let _worker = setup.start_worker().await;
    let mut daemon = setup.start().await;
    daemon.publish(ASKED, json!({ "ask": [{ "prompt": "!hold it" }, { "prompt": "another" }] })).await;
    endpoint.sees("both", |seen| seen.requests == 2 && seen.open == 1).await;
    daemon.kill().await;
    endpoint.release().await;
    let records = world.wait_stored("cd.e.>", 2).await;
    assert_eq!(records.len(), 2);
    let daemon = setup.start().await;
    let seen = body(&daemon.wait_stored(SEEN, 1).await[0]);
    assert_eq!(texts(&seen), ["The answer to: !hold it", "The answer to: another"]);
    assert_eq!(endpoint.seen().await.requests, 2);
    // A job each, of the plugin, under the names that follow from event and question.
    let jobs = world.stored("cd.j.>").await;
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        let job = job.json();
        let id = job["id"].as_str().expect("an id");
        assert!(id.starts_with("infer_normal_") && id.contains("-i0-"), "{id}");
        assert_eq!(job["answer"], "guest");
    }
    assert_eq!(world.count("agent.response.>").await, 0, "nobody else hears of it");
}

#[tokio::test]
async fn a_daemon_that_stops_leaves_its_question_to_the_next_run() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    // Whoever waited for the answer would be waited for.
    let setup =
        asking(world.setup(), &endpoint).plugin(on_events(guest("infer"))).with("dispatch.drain", "1h");
    let _worker = setup.start_worker().await;
    let mut daemon = setup.start().await;
    daemon.publish(ASKED, json!({ "ask": [{ "prompt": "!hold it" }] })).await;
    endpoint.sees("it", |seen| seen.open == 1).await;
    daemon.stop().await;
    daemon.says("the host stops").await;
    let daemon = setup.start().await;
    endpoint.release().await;
    let seen = body(&daemon.wait_stored(SEEN, 1).await[0]);
    assert_eq!((&seen["attempt"], texts(&seen)[0]), (&json!(1), "The answer to: !hold it"));
    assert_eq!(endpoint.seen().await.requests, 1);
}

#[tokio::test]
async fn two_hosts_at_one_event_ask_once() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let guest = || guest("infer").on(ASKED, "ack-wait = \"1s\"");
    let setup = asking(world.setup(), &endpoint).plugin(guest());
    let _worker = setup.start_worker().await;
    let frozen = setup.start().await;
    frozen.publish(ASKED, json!({ "ask": [{ "prompt": "!hold it" }, { "prompt": "!hold it" }] })).await;
    endpoint.sees("both", |seen| seen.requests == 2 && seen.open == 2).await;
    frozen.pause();
    let setup = asking(world.setup(), &endpoint).plugin(guest());
    let other = setup.start().await;
    let is_there = |now: &Scrape| now.sum("cofferdam_events_in_flight", &[]) == 1.0;
    other.moved("the event is here", &Scrape::default(), is_there).await;
    endpoint.release().await;
    let seen = body(&other.wait_stored(SEEN, 1).await[0]);
    assert_eq!(texts(&seen), ["The answer to: !hold it"; 2]);
    frozen.resume();
    frozen.events(&Scrape::default(), [("infer duplicate -", 1)]).await;
    assert_eq!(endpoint.seen().await.requests, 2);
    assert_eq!((world.count("cd.j.>").await, world.count(SEEN).await), (2, 1));
}

#[tokio::test]
async fn a_job_that_nobody_works_is_made_anew_and_not_asked_late() {
    let (world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup =
        asking(world.setup(), &endpoint).plugin(on_events(guest("infer"))).with("executor.lease", "1s");
    let daemon = setup.start().await;
    daemon.publish(ASKED, json!({ "ask": [{ "prompt": "it", "timeout": 1 }], "patient": true })).await;
    daemon.says("nobody has ended the job").await;
    let _worker = setup.start_worker().await;
    let seen = body(&daemon.wait_stored(SEEN, 1).await[0]);
    assert_eq!(texts(&seen), ["The answer to: it"]);
    assert_eq!(endpoint.seen().await.requests, 1);
    let jobs = world.stored("cd.j.>").await;
    let again =
        jobs.iter().filter(|job| job.subject.rsplit('-').next().is_some_and(|last| last.starts_with('t')));
    assert_eq!(again.count(), jobs.len() - 1);
    assert_eq!(jobs.len() as u64, seen["attempt"].as_u64().unwrap());
}

#[tokio::test]
async fn a_question_outlives_a_bus_that_is_away() {
    let (mut world, endpoint) = (World::start().await, Endpoint::start().await);
    let setup = asking(world.setup(), &endpoint).plugin(on_events(guest("infer")));
    let _worker = setup.start_worker().await;
    let daemon = setup.start().await;
    daemon.publish(ASKED, json!({ "ask": [{ "prompt": "!hold it" }] })).await;
    endpoint.sees("it", |seen| seen.open == 1).await;
    world.nats.kill().await;
    endpoint.release().await;
    world.nats.up().await;
    let seen = body(&daemon.wait_stored(SEEN, 1).await[0]);
    assert_eq!((texts(&seen), &seen["attempt"]), (vec!["The answer to: !hold it"], &json!(1)));
    assert_eq!(endpoint.seen().await.requests, 1);
}

#[tokio::test]
async fn the_stand_in_answers_questions_too() {
    let world = World::start().await;
    let guest = on_events(guest("infer"));
    let daemon = world.setup().plugin(guest).with("executor.backend", "offline").start().await;
    let prompt = "Acceptance criteria:\n- It works\n";
    daemon.publish(ASKED, json!({ "ask": [{ "prompt": prompt }], "retries": 1 })).await;
    let seen = body(&daemon.wait_stored(SEEN, 1).await[0]);
    assert!(texts(&seen)[0].contains("It works"), "{seen}");
    assert_eq!(world.count("cd.j.>").await, 1);
}
