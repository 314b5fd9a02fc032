//! The whole executor against a real server, whose address and model are in `COFFERDAM_LLM_URL` and `COFFERDAM_LLM_MODEL`: a
//! job, its queue, a worker, the model, the event. `cargo xtask test --with-llm` brings a server. What a model says is not
//! looked at, so that one of random weights will do.

use std::env;

use harness::{
    daemon::Daemon,
    jobs::{self, Queue},
    setup::Setup,
    world::{Message, World},
};
use serde_json::{Value, json};

fn model() -> String {
    env::var("COFFERDAM_LLM_MODEL").unwrap_or_else(|_| "tiny".into())
}

/// A worker whose endpoint is the server.
struct Place {
    world: World,
    queue: Queue,
    worker: Daemon,
    _setup: Setup,
}

impl Place {
    async fn start() -> Place {
        let url = env::var("COFFERDAM_LLM_URL").expect("COFFERDAM_LLM_URL of a running server");
        let world = World::start().await;
        world.stream("AGENT_RESPONSES", "agent.response.>").await;
        let setup = world
            .setup()
            .with("executor.backend", "queue")
            .with("executor.model", model())
            .with("executor.endpoints.real.url", url);
        let worker = setup.start_worker().await;
        let queue = Queue::new("tests", &model());
        queue.open(&world.jetstream).await;
        Place { world, queue, worker, _setup: setup }
    }

    /// Cold, and at most 48 tokens, unless `sampling` says otherwise. Gives the job's id.
    async fn submit(&self, own: &str, sampling: Value) -> String {
        self.submit_job(own, sampling, false).await
    }

    async fn submit_job(&self, own: &str, sampling: Value, stream: bool) -> String {
        let mut job = jobs::job(own, &model(), "Say something about rivers.");
        job["sampling"]["max_tokens"] = 48.into();
        job["sampling"]["temperature"] = 0.0.into();
        job["sampling"]["seed"] = 1.into();
        for (name, value) in sampling.as_object().expect("fields") {
            job["sampling"][name] = value.clone();
        }
        if stream {
            job["stream"] = true.into();
        }
        self.queue.submit(&self.world.jetstream, own, &job).await.expect("a job that is stored");
        self.queue.id(own)
    }

    /// What the last of so many answers says, and its record.
    async fn answered(&self, id: &str, answers: usize) -> (String, Value) {
        let all = self.world.wait_stored("agent.response.completed", answers).await;
        let last = all.last().expect("an answer").payload();
        assert_eq!(last["deliberation_id"], id, "{last}");
        let record = self.record(id).await;
        assert_eq!(record["phase"], "done", "{record}");
        (last["proposal"]["content"].as_str().expect("a text").to_owned(), record)
    }

    async fn record(&self, id: &str) -> Value {
        let records = self.world.wait_stored(&format!("cd.e.{id}"), 1).await;
        records.last().map(Message::json).expect("a record")
    }

    async fn end(mut self) {
        self.worker.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a real server: cargo xtask test --with-llm"]
async fn a_job_is_answered_and_its_tokens_are_counted() {
    let place = Place::start().await;
    let id = place.submit("a", json!({})).await;
    let (said, record) = place.answered(&id, 1).await;
    assert!(!said.is_empty());
    assert!(record["tokens_in"].as_u64() > Some(0), "{record}");
    assert!((1..=48).contains(&record["tokens_out"].as_u64().expect("a number")), "{record}");
    let id = place.submit("b", json!({ "max_tokens": 2 })).await;
    let (short, record) = place.answered(&id, 2).await;
    assert!(said.starts_with(short.trim_end()), "cold, it begins alike: {short:?}, {said:?}");
    assert_eq!(record["tokens_out"], 2, "{record}");
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a real server: cargo xtask test --with-llm"]
async fn tokens_are_told_as_they_come_and_make_the_answer() {
    let place = Place::start().await;
    let mut tokens = place.world.watch(&format!("cofferdam-tokens.{}", place.queue.id("a"))).await;
    let id = place.submit_job("a", json!({}), true).await;
    let (said, _) = place.answered(&id, 1).await;
    let mut told = String::new();
    while told.len() < said.len() {
        let chunk = tokens.next().await.json();
        assert_eq!(chunk["offset"], told.len(), "{chunk}");
        told.push_str(chunk["text"].as_str().expect("a text"));
    }
    assert_eq!(told, said);
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a real server: cargo xtask test --with-llm"]
async fn an_answer_holds_to_the_schema_of_its_job() {
    let place = Place::start().await;
    let schema = json!({
        "type": "object",
        "properties": {
            "size": { "type": "integer", "minimum": 0, "maximum": 100 },
            "kind": { "enum": ["dam", "weir"] },
        },
        "required": ["size", "kind"],
        "additionalProperties": false,
    });
    let format = json!({ "schema": { "name": "works", "schema": schema.to_string(), "strict": true } });
    for (number, stream) in [(1, false), (2, true)] {
        let sampling = json!({ "format": format, "max_tokens": 200 });
        let id = place.submit_job(&format!("a{number}"), sampling, stream).await;
        let (said, _) = place.answered(&id, number).await;
        let value: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert!(value["size"].is_u64() && value["kind"].is_string(), "{said}");
    }
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a real server: cargo xtask test --with-llm"]
async fn an_answer_ends_before_what_its_job_says_to_stop_at() {
    let place = Place::start().await;
    let id = place.submit("a", json!({})).await;
    let (said, _) = place.answered(&id, 1).await;
    // Two letters that it does not begin with, where they come first.
    let starts: Vec<usize> = said.char_indices().map(|(at, _)| at).collect();
    let pairs = starts.iter().zip(starts.iter().skip(2)).skip(1).map(|(from, to)| &said[*from..*to]);
    let stop =
        pairs.into_iter().find(|pair| !said.starts_with(pair) && pair.trim() == *pair).expect("two letters");
    let id = place.submit("b", json!({ "stop": [stop] })).await;
    let (short, _) = place.answered(&id, 2).await;
    assert_eq!(Some(short.trim_end()), said.split(stop).next().map(str::trim_end), "{stop:?} in {said:?}");
    place.end().await;
}

#[tokio::test]
#[ignore = "needs a real server: cargo xtask test --with-llm"]
async fn a_job_that_is_cancelled_leaves_the_model_to_others() {
    let place = Place::start().await;
    for number in 1..=6 {
        let own = format!("long-{number}");
        let mut tokens = place.world.watch(&format!("cofferdam-tokens.{}", place.queue.id(&own))).await;
        let id = place.submit_job(&own, json!({ "max_tokens": 3000 }), true).await;
        tokens.next().await;
        place.world.publish(&format!("cd.x.{id}"), "{}").await;
        let failed = place.world.wait_stored("agent.response.failed", number).await;
        let failed = failed.last().expect("a failure").payload();
        assert_eq!((&failed["error_type"], &failed["deliberation_id"]), (&json!("cancelled"), &json!(id)));
        assert_eq!(place.record(&id).await["phase"], "cancelled");
    }
    let id = place.submit("short", json!({})).await;
    place.answered(&id, 1).await;
    place.end().await;
}
