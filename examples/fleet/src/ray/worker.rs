//! What a Ray worker would do with a deliberation: think for a while, then publish one event per agent.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Deliberation, Standing};
use crate::{
    bus::Bus,
    events::{Event, Style},
    trouble::Trouble,
};

pub(super) const COMPLETED: &str = "agent.response.completed";
const FAILED: &str = "agent.response.failed";

/// Between attempts while the bus is out of reach.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) envelope: Style,
    pub(crate) answer: Arc<str>,
    pub(crate) delay: Duration,
    pub(crate) fail: bool,
    pub(crate) book: Book,
    pub(crate) shutdown: CancellationToken,
}

impl Worker {
    /// Works in the background; a shutdown drops what is not published.
    pub(super) fn start(&self, deliberation: Deliberation) {
        let worker = self.clone();
        tokio::spawn(async move {
            let shutdown = worker.shutdown.clone();
            tokio::select! {
                () = worker.work(&deliberation) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    async fn work(&self, deliberation: &Deliberation) {
        tokio::time::sleep(self.delay).await;
        let duration_ms = self.book.find(&deliberation.id).map_or(0, |entry| entry.duration_ms());
        for (agent_id, role) in &deliberation.agents {
            let (subject, payload) = if self.fail {
                (FAILED, failed(deliberation, agent_id, role, duration_ms))
            } else {
                (COMPLETED, completed(deliberation, agent_id, role, duration_ms, &self.answer))
            };
            self.publish(subject, deliberation, agent_id, payload).await;
        }
        let agent_id = deliberation.agents.first().map(|(id, _)| id.clone()).unwrap_or_default();
        let standing = if self.fail {
            Standing::Failed { error: ON_DEMAND.to_owned() }
        } else {
            Standing::Completed { agent_id, proposal: self.answer.to_string() }
        };
        self.book.end(&deliberation.id, standing);
        tracing::info!(
            task_id = deliberation.task_id,
            id = deliberation.id,
            failed = self.fail,
            "deliberation ended"
        );
    }

    /// Until the bus has confirmed it. The message id catches what an unanswered attempt left.
    async fn publish(
        &self,
        subject: &'static str,
        deliberation: &Deliberation,
        agent_id: &str,
        payload: Value,
    ) {
        let payload = match payload {
            Value::Object(payload) => payload,
            _ => Map::new(),
        };
        let event = self.envelope.write(Event {
            event_type: subject,
            producer: "ray-executor",
            entity: &deliberation.task_id,
            operation: &format!("{}:{agent_id}", deliberation.id),
            correlation_id: &deliberation.id,
            causation_id: None,
            payload,
        });
        let data = event.to_string();
        let message_id = format!("{}.{agent_id}", deliberation.id);
        let mut trouble = Trouble::default();
        while let Err(error) = self.bus.publish(subject, &message_id, &data).await {
            if trouble.is_news(&error) {
                let error = format!("{error:#}");
                tracing::warn!(subject, error, "not published yet; trying again until it is");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

const ON_DEMAND: &str = "failed on demand (--fail)";

fn completed(
    deliberation: &Deliberation,
    agent_id: &str,
    role: &str,
    duration_ms: u64,
    answer: &str,
) -> Value {
    // What the caller gave comes back; only what is missing is added.
    let mut metadata: Map<String, Value> =
        deliberation.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    metadata.entry("task_id").or_insert_with(|| json!(deliberation.task_id));
    metadata.entry("story_id").or_insert_with(|| json!(deliberation.story_id));
    metadata.entry("num_agents").or_insert_with(|| json!(deliberation.agents.len()));
    let mut constraints = json!({
        "story_id": deliberation.story_id,
        "timeout_seconds": deliberation.timeout_seconds,
        "max_retries": deliberation.max_retries,
        "metadata": metadata,
    });
    if !deliberation.plan_id.is_empty() {
        constraints["plan_id"] = json!(deliberation.plan_id);
    }
    json!({
        "task_id": deliberation.task_id,
        "agent_id": agent_id,
        "role": role,
        "status": "completed",
        "duration_ms": duration_ms,
        "proposal": {
            "content": answer,
            "author_id": agent_id,
            "author_role": role,
            "model": deliberation.model,
            "temperature": 0.3,
            // The usual rule of thumb: four characters.
            "tokens": answer.chars().count().div_ceil(4),
        },
        "operations": [],
        "artifacts": {},
        "audit_trail": [],
        "success": true,
        "num_agents": deliberation.agents.len(),
        "constraints": constraints,
    })
}

fn failed(deliberation: &Deliberation, agent_id: &str, role: &str, duration_ms: u64) -> Value {
    json!({
        "task_id": deliberation.task_id,
        "agent_id": agent_id,
        "role": role,
        "status": "failed",
        "error": ON_DEMAND,
        "error_type": "OnDemand",
        "num_agents": deliberation.agents.len(),
        "duration_ms": duration_ms,
        "metadata": {"task_id": deliberation.task_id},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliberation() -> Deliberation {
        Deliberation {
            id: "d".to_owned(),
            task_id: "derive-p".to_owned(),
            role: "SYSTEM".to_owned(),
            model: "m".to_owned(),
            story_id: "s".to_owned(),
            plan_id: "p".to_owned(),
            timeout_seconds: 120,
            max_retries: 3,
            metadata: vec![("attempt".to_owned(), "2".to_owned())],
            agents: vec![("task-deriver".to_owned(), "SYSTEM".to_owned())],
        }
    }

    #[test]
    fn an_answer_has_the_shape_of_a_ray_workers() {
        let payload = completed(&deliberation(), "task-deriver", "SYSTEM", 7, "TITLE: A");
        assert_eq!(payload["task_id"], "derive-p");
        assert_eq!(payload["proposal"]["content"], "TITLE: A");
        assert_eq!(payload["proposal"]["tokens"], 2);
        assert_eq!(payload["num_agents"], 1);
        assert_eq!(payload["constraints"]["plan_id"], "p");
        assert_eq!(
            payload["constraints"]["metadata"],
            json!({"attempt": "2", "task_id": "derive-p", "story_id": "s", "num_agents": 1})
        );
    }

    #[test]
    fn a_failure_names_its_task_twice_as_readers_expect() {
        let payload = failed(&deliberation(), "task-deriver", "SYSTEM", 7);
        assert_eq!(payload["task_id"], "derive-p");
        assert_eq!(payload["metadata"]["task_id"], "derive-p");
        assert_eq!(payload["error"], ON_DEMAND);
    }
}
