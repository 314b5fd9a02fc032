//! What a job's end looks like to the fleet: `agent.response.completed` and `agent.response.failed`, as its workers
//! write them.

use std::time::SystemTime;

use bytes::Bytes;
use cofferdam_bus::Message;
use cofferdam_sandbox::Agent;
use serde_json::{Map, Value, json};

use super::{QueuedJob, backends::Answered};
use crate::observe::trace::hex;

const PRODUCER: &str = "cofferdam-executor";
const COMPLETED: &str = "agent.response.completed";
pub(super) const FAILED: &str = "agent.response.failed";
/// The key of a job's metadata that names what its answers correlate with.
const CORRELATION: &str = "correlation_id";

/// What is told of.
pub(super) struct About<'a> {
    pub(super) queued: &'a QueuedJob,
    /// From the beginning of this try.
    pub(super) duration_ms: u64,
    /// `mirror`, `envelope` or `bare`.
    pub(super) envelope: &'a str,
}

impl About<'_> {
    /// The job of one agent of several tells of the whole.
    fn agents(&self) -> usize {
        self.queued.parent.as_ref().map_or(self.queued.job.agents.len(), |parent| parent.agents)
    }

    fn deliberation(&self) -> &str {
        self.queued.parent.as_ref().map_or(&self.queued.id, |parent| &parent.id)
    }

    /// The answer of an agent.
    pub(super) fn completed(&self, agent: &Agent, answered: &Answered) -> Message {
        let payload = json!({
            "task_id": self.queued.job.task_id,
            "agent_id": agent.id,
            "role": self.role(agent),
            "status": "completed",
            "success": true,
            "duration_ms": self.duration_ms,
            "timestamp": now(),
            "num_agents": self.agents(),
            "proposal": {
                "content": answered.text,
                "author_id": agent.id,
                "author_role": self.role(agent),
                "model": answered.model,
                "temperature": shortest(answered.temperature),
                "tokens": answered.tokens_out,
            },
            "operations": [],
            "artifacts": {},
            "audit_trail": [],
            "constraints": self.constraints(),
            "deliberation_id": self.deliberation(),
        });
        self.message(COMPLETED, agent, payload)
    }

    /// One failure for each agent of the job.
    pub(super) fn failed(&self, error: &str, kind: &str) -> Vec<Message> {
        let failure = |agent: &Agent| {
            let payload = json!({
                "task_id": self.queued.job.task_id,
                "agent_id": agent.id,
                "role": self.role(agent),
                "error": error,
                "error_type": kind,
                "num_agents": self.agents(),
                "duration_ms": self.duration_ms,
                "timestamp": now(),
                "metadata": { "task_id": self.queued.job.task_id },
                "constraints": self.constraints(),
                "deliberation_id": self.deliberation(),
            });
            self.message(FAILED, agent, payload)
        };
        self.queued.job.agents.iter().map(failure).collect()
    }

    /// The same with no more in it than what tells whose failure it is.
    pub(super) fn failed_briefly(&self, error: &str, kind: &str) -> Vec<Message> {
        let failure = |agent: &Agent| {
            let payload = json!({
                "task_id": self.queued.job.task_id,
                "agent_id": agent.id,
                "role": self.role(agent),
                "error": error,
                "error_type": kind,
                "num_agents": self.agents(),
                "timestamp": now(),
                "deliberation_id": self.deliberation(),
            });
            self.message(FAILED, agent, payload)
        };
        self.queued.job.agents.iter().map(failure).collect()
    }

    fn role<'a>(&'a self, agent: &'a Agent) -> &'a str {
        if agent.role.is_empty() { &self.queued.job.role } else { &agent.role }
    }

    fn constraints(&self) -> Value {
        let job = &self.queued.job;
        let mut metadata: Map<String, Value> =
            job.metadata.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
        metadata.entry("task_id").or_insert_with(|| json!(job.task_id));
        metadata.insert("num_agents".into(), json!(self.agents()));
        if let Some(story) = &job.story_id {
            metadata.entry("story_id").or_insert_with(|| json!(story));
        }
        json!({ "story_id": job.story_id, "plan_id": job.plan_id, "metadata": metadata })
    }

    fn message(&self, event_type: &str, agent: &Agent, payload: Value) -> Message {
        let key = hex(&<sha2::Sha256 as sha2::Digest>::digest(format!(
            "{event_type}:{}:{}:{}",
            self.queued.job.task_id, self.queued.id, agent.id
        )));
        let wrapped = json!({
            "event_type": event_type,
            "idempotency_key": key,
            "correlation_id": self.correlation(),
            "timestamp": payload["timestamp"],
            "producer": PRODUCER,
            "payload": payload,
        });
        let body = match self.envelope {
            "bare" => payload,
            "envelope" => wrapped,
            _ => mirror(wrapped, payload),
        };
        Message {
            subject: event_type.to_owned(),
            headers: vec![("Cofferdam-Plugin".into(), PRODUCER.into())],
            data: Bytes::from(body.to_string()),
        }
    }

    /// As the submitting plugin says; else the job itself.
    fn correlation(&self) -> &str {
        let mut named = self.queued.job.metadata.iter();
        let named = named.find(|(key, value)| key == CORRELATION && !value.is_empty());
        named.map_or(self.deliberation(), |(_, value)| value)
    }
}

/// The same message for whoever hears the results of one task. Nothing where the task's id can't be part of a subject.
pub(super) fn task_result(response: &Message, task_id: &str) -> Option<Message> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>');
    let tokens = !task_id.is_empty() && task_id.split('.').all(|token| !token.is_empty());
    (tokens && task_id.chars().all(plain))
        .then(|| Message { subject: format!("agent.results.{task_id}"), ..response.clone() })
}

/// 0.2 is not to become 0.20000000298.
fn shortest(temperature: f32) -> f64 {
    temperature.to_string().parse().unwrap_or_default()
}

/// The envelope with the payload's keys beside it, for both kinds of reader.
fn mirror(wrapped: Value, payload: Value) -> Value {
    match (wrapped, payload) {
        (Value::Object(wrapped), Value::Object(mut both)) => {
            both.extend(wrapped);
            Value::Object(both)
        }
        (wrapped, _) => wrapped,
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{job::Parent, testing};

    fn about(queued: &QueuedJob) -> About<'_> {
        About { queued, duration_ms: 12, envelope: "mirror" }
    }

    fn answered() -> Answered {
        Answered {
            text: "TITLE: A".into(),
            model: "m".into(),
            tokens_out: 3,
            temperature: 0.2,
            ..Answered::default()
        }
    }

    fn json(message: &Message) -> Value {
        serde_json::from_slice(&message.data).unwrap()
    }

    #[test]
    fn answers_correlate_with_the_submitting_event_if_it_is_named() {
        let mut queued = testing::job(&["a"]);
        for (value, correlation) in [(None, "o-1-j0"), (Some(""), "o-1-j0"), (Some("c-7"), "c-7")] {
            queued.job.metadata = value.map(|v| (CORRELATION.into(), v.into())).into_iter().collect();
            let about = about(&queued);
            let failures = about.failed("e", "refused");
            let briefly = about.failed_briefly("e", "refused");
            let completed = about.completed(&queued.job.agents[0], &answered());
            for message in failures.iter().chain(&briefly).chain([&completed]) {
                assert_eq!(json(message)["correlation_id"], correlation, "{value:?} {}", message.subject);
            }
        }
    }

    #[test]
    fn an_agents_own_job_tells_of_the_whole() {
        let mut queued = testing::job(&["a"]);
        queued.parent = Some(Parent { id: "p_low_01234567_whole".into(), agents: 3, submitted: 1 });
        let about = about(&queued);
        for message in about
            .failed("e", "refused")
            .into_iter()
            .chain([about.completed(&queued.job.agents[0], &answered())])
        {
            let body = json(&message);
            assert_eq!(
                (&body["num_agents"], &body["deliberation_id"]),
                (&3.into(), &"p_low_01234567_whole".into())
            );
            assert_eq!(body["constraints"]["metadata"]["num_agents"], 3);
            assert_eq!(
                (&body["correlation_id"], &body["duration_ms"]),
                (&"p_low_01234567_whole".into(), &12.into())
            );
        }
    }

    #[test]
    fn an_answer_tells_what_it_cost_and_how_it_was_made() {
        let queued = testing::job(&["a"]);
        let body = json(&about(&queued).completed(&queued.job.agents[0], &answered()));
        assert_eq!(body["proposal"]["tokens"], 3);
        assert_eq!(body["proposal"]["temperature"], 0.2);
        assert_eq!(body["proposal"]["model"], "m");
    }

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    const ENVELOPE: [&str; 6] =
        ["correlation_id", "event_type", "idempotency_key", "payload", "producer", "timestamp"];

    #[test]
    fn contract_2_4_what_is_written_of_a_jobs_end_has_exactly_these_keys_in_every_envelope() {
        let mut queued = testing::job(&["a"]);
        queued.job.story_id = Some("s-1".into());
        let agent = &queued.job.agents[0];
        let about = |envelope| About { envelope, ..about(&queued) };
        let completed: &[&str] = &[
            "agent_id",
            "artifacts",
            "audit_trail",
            "constraints",
            "deliberation_id",
            "duration_ms",
            "num_agents",
            "operations",
            "proposal",
            "role",
            "status",
            "success",
            "task_id",
            "timestamp",
        ];
        let failed: &[&str] = &[
            "agent_id",
            "constraints",
            "deliberation_id",
            "duration_ms",
            "error",
            "error_type",
            "metadata",
            "num_agents",
            "role",
            "task_id",
            "timestamp",
        ];
        let briefly: &[&str] = &[
            "agent_id",
            "deliberation_id",
            "error",
            "error_type",
            "num_agents",
            "role",
            "task_id",
            "timestamp",
        ];
        type Write = fn(&About<'_>, &Agent) -> Message;
        let all: [(&str, &[&str], Write); 3] = [
            (COMPLETED, completed, |about, agent| about.completed(agent, &answered())),
            (FAILED, failed, |about, _| about.failed("e", "timeout").remove(0)),
            (FAILED, briefly, |about, _| about.failed_briefly("e", "timeout").remove(0)),
        ];
        for (subject, expected, write) in all {
            let bare = json(&write(&about("bare"), agent));
            assert_eq!(keys(&bare), expected, "bare {subject}");

            let wrapped = write(&about("envelope"), agent);
            assert_eq!(wrapped.subject, subject);
            let wrapped = json(&wrapped);
            assert_eq!(keys(&wrapped), ENVELOPE, "envelope {subject}");
            assert_eq!(keys(&wrapped["payload"]), expected);

            let mirror = json(&write(&about("mirror"), agent));
            let mut both: Vec<&str> = ENVELOPE.iter().chain(expected).copied().collect();
            both.sort_unstable();
            both.dedup();
            assert_eq!(keys(&mirror), both, "mirror {subject}");
            assert_eq!(keys(&mirror["payload"]), expected);
            for key in expected {
                assert_eq!(mirror[key], mirror["payload"][key], "{key} of {subject}");
            }
            assert_eq!(
                [&mirror["event_type"], &mirror["producer"]],
                [&Value::from(subject), &PRODUCER.into()]
            );
            for event in [&bare, &wrapped, &mirror] {
                let at = event["timestamp"].as_str().unwrap();
                assert!(at.ends_with('Z') && humantime::parse_rfc3339(at).is_ok(), "{at}");
            }
        }
    }

    #[test]
    fn contract_2_4_a_written_answer_tells_proposal_and_constraints_as_workers_do() {
        let mut queued = testing::job(&["a", "b"]);
        queued.job.story_id = Some("s-1".into());
        queued.job.metadata = vec![("attempt".into(), "1".into())];
        let about = About { envelope: "bare", ..about(&queued) };
        let agent = &queued.job.agents[1];
        let body = json(&about.completed(agent, &answered()));
        let expected = json!({
            "task_id": "t-1", "agent_id": "b", "role": "DEV", "status": "completed", "success": true,
            "duration_ms": 12, "timestamp": body["timestamp"], "num_agents": 2, "deliberation_id": "o-1-j0",
            "proposal": {
                "content": "TITLE: A", "author_id": "b", "author_role": "DEV", "model": "m", "temperature": 0.2, "tokens": 3,
            },
            "operations": [], "artifacts": {}, "audit_trail": [],
            "constraints": {
                "story_id": "s-1", "plan_id": "p-1",
                "metadata": { "attempt": "1", "task_id": "t-1", "story_id": "s-1", "num_agents": 2 },
            },
        });
        assert_eq!(body, expected);
        let failed = json(&about.failed("too late", "timeout")[1]);
        assert_eq!(failed["constraints"], expected["constraints"]);
        assert_eq!(failed["metadata"], json!({ "task_id": "t-1" }));
        assert_eq!(
            [&failed["agent_id"], &failed["role"], &failed["error"], &failed["error_type"]],
            ["b", "DEV", "too late", "timeout"].map(Value::from).each_ref()
        );
    }

    #[test]
    fn contract_2_4_what_is_written_for_each_agent_has_a_key_of_its_own_that_stays_the_same() {
        let keys = || -> Vec<String> {
            let queued = testing::job(&["a", "b", "c"]);
            let about = about(&queued);
            let completed = queued.job.agents.iter().map(|agent| about.completed(agent, &answered()));
            let messages: Vec<Message> = completed.chain(about.failed("e", "timeout")).collect();
            messages.iter().map(|m| json(m)["idempotency_key"].as_str().unwrap().to_owned()).collect()
        };
        let first = keys();
        assert_eq!(first, keys(), "written again");
        assert!(first.iter().all(|key| key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit())));
        let distinct: std::collections::BTreeSet<&String> = first.iter().collect();
        assert_eq!(distinct.len(), 6);
        // As `<event type>:<entity>:<operation>`.
        let key = hex(&<sha2::Sha256 as sha2::Digest>::digest(format!("{COMPLETED}:t-1:o-1-j0:a")));
        assert_eq!(first[0], key);
    }

    #[test]
    fn a_result_goes_to_its_task_if_that_can_be_a_subject() {
        let message = testing::messages(&[COMPLETED]).remove(0);
        for (task, subject) in [
            ("derive-p-1", Some("agent.results.derive-p-1")),
            ("a.b", Some("agent.results.a.b")),
            ("", None),
            ("a b", None),
            ("a..b", None),
            (".a", None),
            ("a.*", None),
            (">", None),
        ] {
            let result = task_result(&message, task).map(|result| result.subject);
            assert_eq!(result.as_deref(), subject, "{task:?}");
        }
    }
}
