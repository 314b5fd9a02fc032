//! The job queue as it lies on the bus, for a test that stands where a submitter stands: a plain client, and no code of the
//! executor under test.

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Kept for so long.
const TTL: &str = "604800s";

/// Jobs of one plugin, equally urgent, for one model.
#[derive(Debug, Clone)]
pub struct Queue {
    pub plugin: String,
    pub priority: &'static str,
    pub model: String,
}

impl Queue {
    pub fn new(plugin: &str, model: &str) -> Queue {
        Queue { plugin: plugin.to_owned(), priority: "normal", model: model.to_owned() }
    }

    /// The id of a job; `own` is what tells it from others of this queue.
    pub fn id(&self, own: &str) -> String {
        format!("{}_{}_{}_{own}", self.plugin, self.priority, self.token())
    }

    /// Where a job with this id lies.
    pub fn subject(&self, own: &str) -> String {
        format!("cd.j.{}.{}", self.place(), self.id(own))
    }

    /// The durable that hands out its jobs.
    pub fn durable(&self) -> String {
        format!("cofferdam-jobs-{}", self.place().replace('.', "-"))
    }

    fn token(&self) -> String {
        let digest = Sha256::digest(&self.model);
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn place(&self) -> String {
        format!("{}.{}.{}", self.plugin, self.priority, self.token())
    }

    /// Tells that there is such a queue, as whoever submits to it first.
    pub async fn open(&self, jetstream: &jetstream::Context) {
        let notice = json!({ "plugin": self.plugin, "priority": self.priority, "model": self.model });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let subject = format!("cd.u.{}", self.place());
        let sent = jetstream.publish_with_headers(subject, headers, notice.to_string().into());
        sent.await.expect("a connection").await.expect("nobody else's queue");
    }

    /// Stores a job, whose rest is as [`job`] makes it; it is on the queue when this returns.
    pub async fn submit(
        &self,
        jetstream: &jetstream::Context,
        own: &str,
        job: &Value,
    ) -> Result<(), jetstream::context::PublishError> {
        let id = self.id(own);
        let subject = format!("cd.j.{}.{id}", self.place());
        let mut queued = json!({ "id": id, "plugin": self.plugin, "job": job });
        if job["stream"] == true {
            queued["stream"] = true.into();
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", TTL);
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        jetstream.publish_with_headers(subject, headers, queued.to_string().into()).await?.await?;
        Ok(())
    }
}

/// A job of one agent.
pub fn job(task_id: &str, model: &str, prompt: &str) -> Value {
    json!({
        "task_id": task_id,
        "prompt": prompt,
        "role": "DEVELOPER",
        "model": model,
        "agents": [{ "id": "agent-1", "role": "DEVELOPER", "model": model, "prompt_template": "" }],
        "story_id": null,
        "plan_id": null,
        "timeout_seconds": 120,
        "max_retries": 3,
        "metadata": [],
        "priority": "normal",
        "sampling": { "temperature": null, "max_tokens": null, "stop": [], "seed": null, "format": "text" },
    })
}
