//! Jobs against OpenAI-compatible endpoints, which behave, or not: each outcome with its word and its message, from the job to
//! the event. The endpoint is a process of its own; the daemon is one on the embedded bus, which works its jobs itself.

use std::{collections::BTreeMap, time::Instant};

use fleet_proto::{
    bus::v1::StoredMessage,
    ray_executor::v1::{DeliberationResult, GetDeliberationStatusResponse},
};
use harness::{
    daemon::Daemon,
    endpoint::Endpoint,
    executor::{Executor, Reply},
    fleet::free_address,
    pipeline::executed_at,
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
    way_in::body,
    world::World,
};
use serde_json::{Value, json};
use toml::Value as Toml;

const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";

/// A daemon whose jobs go to endpoints, and a plugin that submits them.
fn setup() -> Setup {
    on(Setup::local())
}

fn on(setup: Setup) -> Setup {
    let guest = Plugin::fixture("submit-job")
        .on("cofferdam.asked", "")
        .may("executor", &["*"])
        .reports_to("cofferdam.seen");
    setup
        .plugin(guest)
        .with("executor.backend", "queue")
        .with("executor.model", "plain")
        .with("executor.attempts", 1)
}

fn endpoint(setup: Setup, name: &str, url: &str) -> Setup {
    setup.with(&format!("executor.endpoints.{name}.url"), url)
}

/// The limits that these behaviours meet, so that a test can wait for them; all else has time.
const LIMITS: [(&str, &str, &str); 4] = [
    ("hang", "first-timeout", "1s"),
    ("hang", "timeout", "2s"),
    ("hang-midway", "idle-timeout", "1s"),
    ("drip", "timeout", "2s"),
];

/// A model that only these serve.
fn model(setup: Setup, name: &str, endpoints: &[&str]) -> Setup {
    let endpoints = endpoints.iter().map(|name| Toml::from(*name)).collect::<Vec<_>>();
    setup.with(&format!("executor.models.{name}.endpoints"), endpoints)
}

/// The one model, at all endpoints.
fn plain(setup: Setup) -> Setup {
    setup.with("executor.models.plain.concurrency", 8)
}

async fn submit(daemon: &Daemon, job: Value) {
    daemon.publish("cofferdam.asked", job).await;
}

fn job(task: &str, model: &str, prompt: &str) -> Value {
    json!({ "task_id": task, "role": "DEV", "model": model, "prompt": prompt })
}

/// The payloads of so many events, by task.
async fn ended(daemon: &Daemon, subject: &str, count: usize) -> BTreeMap<String, Value> {
    let stored = daemon.wait_stored(subject, count).await;
    let by_task: BTreeMap<String, Value> = stored.iter().map(payload).collect();
    assert_eq!(by_task.len(), stored.len(), "an event for each job: {stored:#?}");
    by_task
}

fn payload(stored: &StoredMessage) -> (String, Value) {
    let payload = body(stored)["payload"].clone();
    (payload["task_id"].as_str().expect("a task").to_owned(), payload)
}

async fn completed(daemon: &Daemon, task: &str) -> String {
    let ended = ended(daemon, COMPLETED, 1).await;
    ended[task]["proposal"]["content"].as_str().expect("a text").to_owned()
}

async fn failed(daemon: &Daemon, task: &str) -> (String, String) {
    let ended = ended(daemon, FAILED, 1).await;
    let text = |key: &str| ended[task][key].as_str().unwrap_or_default().to_owned();
    (text("error_type"), text("error"))
}

/// What each of these behaviours becomes. Each has an endpoint of its own, so that none is left alone for what another did.
async fn each_becomes(setup: Setup, expected: &[(&str, &str, &str)]) {
    let there = Endpoint::start().await;
    let setup = expected.iter().fold(setup, |setup, (behaviour, ..)| {
        let name = format!("at-{behaviour}");
        let setup = endpoint(setup, &name, &there.url())
            .with(&format!("executor.endpoints.{name}.max-answer"), "64KiB");
        let limits = LIMITS.iter().filter(|(limited, ..)| limited == behaviour);
        let setup = limits.fold(setup, |setup, (_, key, limit)| {
            setup.with(&format!("executor.endpoints.{name}.{key}"), *limit)
        });
        model(setup, behaviour, &[&name])
    });
    let mut daemon = setup.start().await;
    for (behaviour, ..) in expected {
        submit(&daemon, json!({
            "task_id": behaviour, "role": "DEV", "model": behaviour, "prompt": "do it", "json": *behaviour == "bad-json",
        }))
        .await;
    }
    let ended = ended(&daemon, FAILED, expected.len()).await;
    for (behaviour, kind, told) in expected {
        let payload = &ended[*behaviour];
        let error = payload["error"].as_str().expect("an error");
        assert_eq!(payload["error_type"], *kind, "{behaviour}: {error}");
        assert!(error.contains(told), "{behaviour}: {error}");
        let named = format!("at-{behaviour} ({}) with model {behaviour:?}: ", there.url());
        assert!(error.contains(&named), "{behaviour}: {error}");
        assert_eq!((&payload["agent_id"], &payload["num_agents"]), (&json!("agent-1"), &json!(1)));
    }
    assert_eq!(daemon.stored(COMPLETED).await.len(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn whatever_an_endpoint_does_has_a_word_and_a_remedy() {
    each_becomes(setup(), &[
        ("hang", "hung", "see whether it hangs or has too much to do"),
        ("hang-midway", "hung", "nothing more came for 1s in the middle of its answer; see whether it hangs"),
        ("429", "overloaded", "it answered 429 Too Many Requests: \"slow down\""),
        ("503", "overloaded", "it answered 503 Service Unavailable: \"no room\""),
        ("500", "server_error", "it answered 500 Internal Server Error: \"CUDA out of memory\""),
        ("401", "unauthorized", "see the token and what it may do"),
        ("no-model", "model_missing", "load the model there, or name another"),
        ("break", "truncated", "the connection broke before an answer came"),
        ("half-line", "truncated", "the connection broke in the middle of the answer"),
        ("endless", "too_large", "its answer is over the limit of 65536 bytes and was let go; set max_tokens, or a higher limit"),
        ("drip", "endless", "its answer had no end after 2s; set max_tokens, or a longer time-out"),
        ("empty", "empty", "its answer has no choices; see its log"),
        ("no-content", "empty", "its answer has no content (stop); see max_tokens, stop and the prompt"),
        ("bad-json", "invalid_schema", "JSON was asked for, and its answer is none"),
        ("not-json", "malformed", "its answer can't be read"),
        ("html", "malformed", "it answered with a web page; see the URL: most end in /v1"),
        ("ten-megabytes", "too_large", "over the limit of 65536 bytes"),
    ])
    .await;
}

#[tokio::test]
async fn whatever_a_stream_does_has_a_word_and_a_remedy() {
    each_becomes(
        setup().with("executor.stream-tokens", true),
        &[
            ("hang", "hung", "it took the request and said nothing for "),
            (
                "hang-midway",
                "hung",
                "nothing more came for 1s in the middle of its answer; see whether it hangs",
            ),
            ("break", "truncated", "the connection broke before an answer came"),
            (
                "half-line",
                "truncated",
                "its stream ended after 9 bytes of text without its end (no finish_reason, no [DONE])",
            ),
            ("endless", "too_large", "over the limit of 65536 bytes"),
            ("drip", "endless", "its answer had no end after 2s"),
            ("empty", "empty", "its answer has no content (no finish_reason)"),
            ("bad-json", "invalid_schema", "JSON was asked for, and its answer is none"),
            ("ten-megabytes", "too_large", "over the limit of 65536 bytes"),
            ("500", "server_error", "CUDA out of memory"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_model_that_no_endpoint_serves_is_told_with_those_that_are() {
    let there = Endpoint::start().await;
    let daemon = plain(endpoint(setup(), "gpu", &there.url())).start().await;
    submit(&daemon, job("t-1", "another", "do it")).await;
    let (kind, error) = failed(&daemon, "t-1").await;
    assert_eq!(kind, "unknown_model");
    assert!(error.contains("\"another\"") && error.contains("plain"), "{error}");
    assert_eq!(there.seen().await.requests, 0);
}

#[tokio::test]
async fn a_job_ends_at_its_deadline_and_its_request_with_it() {
    let there = Endpoint::start().await;
    let setup = endpoint(setup(), "gpu", &there.url());
    let daemon = model(setup, "hang", &["gpu"]).start().await;
    let mut late = job("t-1", "hang", "do it");
    late["timeout"] = 1.into();
    submit(&daemon, late).await;
    let (kind, error) = failed(&daemon, "t-1").await;
    assert_eq!(kind, "timeout", "{error}");
    there.sees("that the client went", |seen| seen.gone == 1).await;
    assert_eq!(there.seen().await.requests, 1);
}

#[tokio::test]
async fn nobody_at_the_address_is_told_after_the_last_try() {
    let address = free_address();
    let daemon = plain(endpoint(setup(), "gpu", &format!("http://{address}/v1"))).start().await;
    submit(&daemon, job("t-1", "plain", "do it")).await;
    let (kind, error) = failed(&daemon, "t-1").await;
    assert_eq!(kind, "unreachable", "{error}");
    assert!(error.contains("see that it runs, and that the address is right"), "{error}");
}

#[tokio::test]
async fn a_job_waits_for_an_endpoint_that_comes_back() {
    let mut there = Endpoint::start().await;
    let address = there.address().to_owned();
    let daemon = plain(endpoint(setup(), "gpu", &there.url())).start().await;
    there.kill().await;
    submit(&daemon, job("t-1", "plain", "do it")).await;
    daemon.says("the job waits").await;
    let back = Endpoint::at(&address).await;
    assert_eq!(completed(&daemon, "t-1").await, "The answer to: do it");
    assert_eq!(back.seen().await.by_prompt["do it"], 1);
    assert_eq!(daemon.stored(FAILED).await.len(), 0);
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause_gets_it() {
    let there = Endpoint::start().await;
    let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.attempts", 2);
    let daemon = setup.start().await;
    let begun = Instant::now();
    submit(&daemon, job("t-1", "plain", "!429-once please")).await;
    completed(&daemon, "t-1").await;
    assert!(
        begun.elapsed().as_millis() >= 1000,
        "{:?} are less than the second it asked for",
        begun.elapsed()
    );
    assert_eq!(there.seen().await.requests, 2);
    let metrics = daemon.scrape().await;
    assert_eq!(metrics.sum("cofferdam_jobs_tokens_out_total", &[]), 7.0, "only the answer is paid for");
}

#[tokio::test]
async fn what_one_endpoint_cannot_do_another_does() {
    let (busy, down, works) = (Endpoint::always("503").await, free_address(), Endpoint::start().await);
    let setup = endpoint(setup(), "busy", &busy.url()).with("executor.attempts", 4);
    let setup = endpoint(setup, "down", &format!("http://{down}/v1"));
    let daemon = plain(endpoint(setup, "works", &works.url())).start().await;
    for n in 0..12 {
        submit(&daemon, job(&format!("t-{n}"), "plain", &format!("do {n}"))).await;
    }
    let ended = ended(&daemon, COMPLETED, 12).await;
    for n in 0..12 {
        assert_eq!(ended[&format!("t-{n}")]["proposal"]["content"], format!("The answer to: do {n}"));
    }
    assert_eq!(daemon.stored(FAILED).await.len(), 0);
    let seen = works.seen().await;
    assert!(seen.requests == 12 && seen.by_prompt.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn what_may_have_been_worked_is_asked_again_only_where_the_operator_says_so() {
    for (repeat, kind) in [("unworked", Some("server_error")), ("unknown", None)] {
        let there = Endpoint::start().await;
        let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.repeat", repeat);
        let daemon = setup.with("executor.attempts", 3).start().await;
        submit(&daemon, job("t-1", "plain", "!500-once please")).await;
        match kind {
            Some(kind) => assert_eq!(failed(&daemon, "t-1").await.0, kind),
            None => assert_eq!(completed(&daemon, "t-1").await, "The answer to: !500-once please"),
        }
        let asked = if kind.is_some() { 1 } else { 2 };
        assert_eq!(there.seen().await.requests, asked, "{repeat}");
    }
}

#[tokio::test]
async fn a_cancelled_job_closes_its_request_and_is_told_as_cancelled() {
    for streamed in [false, true] {
        let there = Endpoint::start().await;
        let setup = model(setup(), "hang-midway", &["gpu"]).with("executor.stream-tokens", streamed);
        let setup = setup.with("executor.endpoints.gpu.url", there.url());
        let daemon = setup.start().await;
        let seen = daemon.client();
        submit(&daemon, job("t-1", "hang-midway", "do it")).await;
        let told = daemon.wait_stored("cofferdam.seen", 1).await;
        let id = body(&told[0])["job"].as_str().expect("a job").to_owned();
        there.sees("the request", |seen| seen.open == 1).await;
        seen.publish("cofferdam.asked", json!({ "cancel": id })).await;
        there.sees("that the client went", |seen| seen.gone == 1).await;
        assert_eq!(failed(&daemon, "t-1").await.0, "cancelled");
        assert_eq!(there.seen().await.requests, 1);
    }
}

#[tokio::test]
async fn a_job_that_a_worker_of_another_process_asks_for_is_cancelled_there() {
    let (world, there) = (World::start().await, Endpoint::start().await);
    let setup = endpoint(on(world.setup()), "gpu", &there.url());
    let setup = model(setup, "hang", &["gpu"]);
    let (daemon, _worker) = (setup.start().await, setup.start_worker().await);
    submit(&daemon, job("t-1", "hang", "do it")).await;
    let told = daemon.wait_stored("cofferdam.seen", 1).await;
    there.sees("the request", |seen| seen.open == 1).await;
    daemon.publish("cofferdam.asked", json!({ "cancel": body(&told[0])["job"] })).await;
    there.sees("that the client went", |seen| seen.gone == 1).await;
    assert_eq!(failed(&daemon, "t-1").await.0, "cancelled");
    assert_eq!(there.seen().await.requests, 1);
}

#[tokio::test]
async fn whoever_waits_for_the_fleets_executor_is_told_what_that_says_when_it_is_asked() {
    let world = World::start().await;
    let status = |status: &str| GetDeliberationStatusResponse { status: status.into(), ..Default::default() };
    let executor = Executor::start(&world, move |request| {
        let proposal = format!("The fleet says: {}", request.task_description);
        let result = DeliberationResult { proposal, ..Default::default() };
        Reply::Told(match request.task_description.as_str() {
            "fail" => vec![
                status("running"),
                GetDeliberationStatusResponse { error_message: "no GPU is left".into(), ..status("failed") },
            ],
            "forget" => vec![status("not_found")],
            _ => vec![
                status("not_found"),
                status("running"),
                GetDeliberationStatusResponse { result: Some(result), ..status("completed") },
            ],
        })
    })
    .await;
    let guest = Plugin::fixture("infer").may("executor", &["default"]).reports_to("cofferdam.told");
    let setup = world.setup().plugin(guest.on("cofferdam.asked", ""));
    let daemon = executed_at(setup, &executor.address).start().await;
    let ask = ["go", "fail", "forget"].map(|prompt| json!({ "prompt": prompt }));
    daemon.publish("cofferdam.asked", json!({ "ask": ask })).await;
    let told = daemon.wait_stored("cofferdam.told", 1).await;
    let answers = body(&told[0])["answers"].clone();
    assert_eq!(answers[0]["text"], "The fleet says: go", "{answers}");
    let error = |n: usize| answers[n]["error"].as_str().expect("an error").to_owned();
    assert!(error(1).contains("ray worked it and failed: no GPU is left"), "{answers}");
    assert!(error(2).contains("knows nothing of that any more"), "{answers}");
    assert_eq!(executor.asked().len(), 3);
    assert_eq!(world.count("agent.response.>").await, 0, "its own workers tell the fleet");
}

#[tokio::test]
async fn how_a_model_is_to_answer_reaches_it_through_another_executor_of_ours() {
    let there = Endpoint::start().await;
    let ours = Setup::local().with("executor.backend", "queue").with("executor.model", "plain");
    let ours = plain(endpoint(ours, "gpu", &there.url()))
        .with("executor.grpc.listen", vec![Toml::from("127.0.0.1:0")])
        .start()
        .await;
    let daemon = executed_at(setup(), ours.executor()).start().await;
    let mut asked = job("t-1", "plain", "do it");
    asked["metadata"] = json!({ "max_tokens": "64" });
    asked["template"] = "You are brief.".into();
    asked["priority"] = "high".into();
    asked["json"] = true.into();
    submit(&daemon, asked).await;
    completed(&ours, "t-1").await;
    let last = there.seen().await.last;
    assert_eq!(last["response_format"], json!({ "type": "json_object" }), "{last}");
    assert_eq!(
        (&last["max_tokens"], &last["messages"][0]["content"]),
        (&json!(64), &json!("You are brief."))
    );
    let jobs = ours.stored("cd.u.clients.high.*").await;
    assert_eq!(jobs.len(), 1, "it waited there as urgent as here");
}

#[tokio::test]
async fn identical_requests_share_an_answer_where_the_operator_lets_them() {
    let there = Endpoint::start().await;
    let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.cache.ttl", "1h");
    let daemon = setup.start().await;
    for n in 0..4 {
        submit(&daemon, job(&format!("t-{n}"), "plain", "!hold this")).await;
    }
    there.sees("the first", |seen| seen.open == 1).await;
    daemon.moved("all of them worked", &daemon.scrape().await, |_| true).await;
    there.release().await;
    let answers = ended(&daemon, COMPLETED, 4).await;
    assert!(answers.values().all(|answer| answer["proposal"]["content"] == "The answer to: !hold this"));
    submit(&daemon, job("t-4", "plain", "!hold this")).await;
    ended(&daemon, COMPLETED, 5).await;
    // Another parameter, another request; and a submitter's second attempt wants another answer.
    let mut other = job("t-5", "plain", "!hold this");
    other["metadata"] = json!({ "temperature": "0.5" });
    submit(&daemon, other).await;
    let mut again = job("t-6", "plain", "!hold this");
    again["metadata"] = json!({ "attempt": "2" });
    submit(&daemon, again).await;
    there.sees("both", |seen| seen.open == 2).await;
    there.release().await;
    ended(&daemon, COMPLETED, 7).await;
    assert_eq!(there.seen().await.requests, 3);
    let metrics = daemon.scrape().await;
    let sum = |name: &str| metrics.sum(name, &[]);
    assert_eq!(sum("cofferdam_executor_cache_hits_total"), 4.0);
    assert_eq!(sum("cofferdam_executor_cache_misses_total"), 3.0);
    assert_eq!(sum("cofferdam_jobs_tokens_out_total"), 21.0, "a hit costs nothing");
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_told_as_it_is_and_is_nobody_elses() {
    let there = Endpoint::start().await;
    let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.cache.ttl", "1h");
    let daemon = setup.start().await;
    for n in 0..2 {
        submit(&daemon, job(&format!("t-{n}"), "plain", "!cut this")).await;
        let ended = ended(&daemon, COMPLETED, n + 1).await;
        assert_eq!(ended[&format!("t-{n}")]["proposal"]["content"], "It is cu");
    }
    assert_eq!(there.seen().await.requests, 2);
}

#[tokio::test]
async fn tokens_are_stored_as_they_come() {
    let there = Endpoint::start().await;
    let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.stream-tokens", true);
    let daemon = setup.start().await;
    submit(&daemon, job("t-1", "plain", "!slow please")).await;
    let chunks = streamed(&daemon, &completed(&daemon, "t-1").await).await;
    // Twenty pieces in a second: not one message each, and not all in one.
    assert!((4..=21).contains(&chunks.len()), "{chunks:#?}");
}

#[tokio::test]
async fn the_stand_ins_tokens_are_stored_as_a_models_are() {
    let setup = setup().with("executor.backend", "offline").with("executor.stream-tokens", true);
    let daemon = setup.start().await;
    submit(
        &daemon,
        job("t-1", "plain", "Title: Guest checkout\nDescription: People buy without an account."),
    )
    .await;
    let chunks = streamed(&daemon, &completed(&daemon, "t-1").await).await;
    assert_eq!(chunks.len(), 2, "it comes at once: {chunks:#?}");
    assert_eq!(chunks[1]["success"], true);
}

/// What is stored of the one job's tokens: this text, piece by piece, and its end.
async fn streamed(daemon: &Daemon, text: &str) -> Vec<Value> {
    let last = |stored: &[StoredMessage]| stored.iter().any(|stored| body(stored)["done"] == true);
    let stored = wait_for("the last of the tokens", async || {
        Some(daemon.stored("vllm.streaming.*").await).filter(|stored| last(stored))
    })
    .await;
    let chunks: Vec<Value> = stored.iter().map(body).collect();
    let mut said = String::new();
    for (index, chunk) in chunks.iter().enumerate() {
        assert_eq!((&chunk["index"], &chunk["offset"]), (&json!(index), &json!(said.len())), "{chunk}");
        assert_eq!((&chunk["task_id"], &chunk["agent_id"]), (&json!("t-1"), &json!("agent-1")));
        assert_eq!(chunk["done"], index == chunks.len() - 1, "{chunk}");
        said.push_str(chunk["text"].as_str().expect("a text"));
    }
    assert_eq!(said, text);
    chunks
}

#[tokio::test]
async fn results_are_stored_for_their_tasks_too_where_the_operator_wants_it() {
    for wanted in [true, false] {
        let there = Endpoint::start().await;
        let setup = plain(endpoint(setup(), "gpu", &there.url())).with("executor.task-results", wanted);
        let daemon = setup.start().await;
        // The last can be part of no subject.
        let jobs = [("ceremony.t-1", "do it"), ("t-2", "!empty please"), ("no subject", "do it")];
        for (task, prompt) in jobs {
            submit(&daemon, job(task, "plain", prompt)).await;
        }
        let told = ended(&daemon, COMPLETED, 2).await;
        let failed = ended(&daemon, FAILED, 1).await;
        assert!(told.contains_key("no subject"), "{told:#?}");
        let count = if wanted { 2 } else { 0 };
        let results = ended(&daemon, "agent.results.>", count).await;
        let expected = [("ceremony.t-1", &told["ceremony.t-1"]), ("t-2", &failed["t-2"])];
        let expected = expected.map(|(task, payload)| (task.to_owned(), payload.clone()));
        assert_eq!(results, expected.into_iter().take(count).collect(), "{wanted}");
        for stored in daemon.stored("agent.results.>").await {
            let subject = stored.message.as_ref().map(|message| message.subject.clone());
            assert_eq!(subject, Some(format!("agent.results.{}", payload(&stored).0)));
        }
    }
}

#[tokio::test]
async fn what_is_asked_is_what_the_job_says() {
    let there = Endpoint::start().await;
    let daemon = plain(endpoint(setup(), "gpu", &there.url())).start().await;
    let mut asked = job("t-1", "plain", "do {prompt}");
    asked["metadata"] = json!({ "temperature": "0.5", "max_tokens": "64", "seed": "7" });
    asked["template"] = "You are brief.".into();
    asked["json"] = true.into();
    submit(&daemon, asked).await;
    completed(&daemon, "t-1").await;
    let last = there.seen().await.last;
    assert_eq!(
        last,
        json!({
            "model": "plain", "stream": false, "temperature": 0.5, "max_tokens": 64, "seed": 7,
            "response_format": { "type": "json_object" },
            "messages": [
                { "role": "system", "content": "You are brief." },
                { "role": "user", "content": "do {prompt}" },
            ],
        })
    );
    let metrics = daemon.scrape().await;
    assert_eq!(metrics.sum("cofferdam_jobs_tokens_in_total", &[]), 11.0);
}
