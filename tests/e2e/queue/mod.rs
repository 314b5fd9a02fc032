//! The queues of jobs, their workers as processes of their own, and an endpoint that does as it is told.

mod embedded;
mod ending;
mod order;
mod parts;
mod takeover;

use harness::{
    daemon::Daemon,
    endpoint::Endpoint,
    jobs::{Queue, job},
    setup::Setup,
    wait::wait_for,
    world::{Message, World},
};
use serde_json::Value;

/// What the endpoint is asked for where nothing else is meant.
const MODEL: &str = "plain";

/// A server, an endpoint, and whoever submits.
struct Place {
    world: World,
    endpoint: Endpoint,
}

impl Place {
    async fn new() -> Place {
        Place { world: World::start().await, endpoint: Endpoint::start().await }
    }

    /// A worker that works so many jobs at a time.
    fn worker(&self, concurrency: i64) -> Setup {
        self.world
            .setup()
            .with("executor.backend", "queue")
            .with("executor.model", MODEL)
            .with("executor.vllm-url", format!("http://{}", self.endpoint.address()))
            .with("executor.concurrency", concurrency)
    }

    /// Jobs of a plugin with these prompts; their ids.
    async fn submit(&self, queue: &Queue, prompts: &[String]) -> Vec<String> {
        queue.open(&self.world.jetstream).await;
        let mut ids = Vec::new();
        for (n, prompt) in prompts.iter().enumerate() {
            let own = format!("{n:04}");
            self.put(queue, &own, &job(&queue.id(&own), &queue.model, prompt)).await;
            ids.push(queue.id(&own));
        }
        ids
    }

    async fn put(&self, queue: &Queue, own: &str, job: &Value) {
        queue.submit(&self.world.jetstream, own, job).await.expect("a job that is stored");
    }

    /// The record of a job, once it has one.
    async fn record(&self, id: &str) -> Value {
        self.world.wait_stored(&format!("cd.e.{id}"), 1).await.remove(0).json()
    }

    /// Whose jobs were answered, in this order.
    async fn answered(&self, count: usize) -> Vec<String> {
        let answers = self.world.wait_stored("agent.response.completed", count).await;
        answers.iter().map(deliberation).collect()
    }

    /// A job that occupies a worker until the endpoint is told to release it.
    async fn hold(&self, own: &str) -> String {
        let queue = Queue::new("holder", MODEL);
        let id = queue.id(own);
        let before = self.endpoint.seen().await.open;
        if own == "0" {
            queue.open(&self.world.jetstream).await;
        }
        self.put(&queue, own, &job(&id, MODEL, &format!("!hold {own}"))).await;
        self.endpoint.sees("a job that is held", |seen| seen.open > before).await;
        id
    }

    /// Asks for a job's end as anybody can.
    async fn cancel(&self, id: &str) {
        self.world.publish(&format!("cd.x.{id}"), "").await;
    }

    /// Nobody is told of a job twice, and nothing is left.
    async fn ended_once(&self, ids: &[String]) {
        wait_for("all jobs to end", async || {
            let mut ended = 0;
            for id in ids {
                ended += self.world.count(&format!("cd.e.{id}")).await;
            }
            (ended >= ids.len()).then_some(())
        })
        .await;
        self.world.quiet().await;
        let mut told: Vec<String> =
            self.world.stored("agent.response.>").await.iter().map(deliberation).collect();
        told.sort();
        let mut expected = ids.to_vec();
        expected.sort();
        assert_eq!(told, expected);
    }
}

fn deliberation(answer: &Message) -> String {
    answer.payload()["deliberation_id"].as_str().expect("an id").to_owned()
}

fn plugin(id: &str) -> &str {
    id.split('_').next().unwrap_or_default()
}

fn plain(count: usize, what: &str) -> Vec<String> {
    (0..count).map(|n| format!("{what} {n}")).collect()
}

async fn settled(worker: Daemon) {
    let mut worker = worker;
    worker.stop().await;
}
