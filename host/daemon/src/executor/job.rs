//! A job as it lies on the queue: what it is, where it lies, and the id that says so.

use std::{collections::BTreeSet, time::Duration};

use cofferdam_sandbox::{Job, Priority};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::observe::trace::hex;

/// A job's message is kept for so long, worked or not: whoever submitted it has given up long before.
pub(super) const JOB_DAYS: u64 = 7;
/// Of the hash of a model's name, in hex digits. Nobody finds a name with the same ones by trying: who did would own the queue.
const MODEL_DIGITS: usize = 16;
/// Of an id, in bytes: it is part of subjects. Ours are shorter.
const MAX_ID: usize = 512;
/// Of a job that says 0.
pub(crate) const TIMEOUT_SECONDS: u32 = 300;
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// A job on the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueuedJob {
    /// See [`Queue::id`].
    pub id: String,
    /// Who submitted it; [`CLIENTS`] for those that call.
    pub plugin: String,
    pub job: Job,
    #[serde(default)]
    pub answer: AnswerTo,
    /// Somebody wants the tokens as they come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// Of one agent of a job with several: where the whole is. Its prompt is there, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// In whose name the jobs of gRPC clients wait.
pub const CLIENTS: &str = "clients";

/// The job that an agent's own is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub id: String,
    /// Of the whole job.
    pub agents: usize,
    /// When the whole was submitted, in nanoseconds since the epoch: its time runs from then.
    pub submitted: u64,
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerTo {
    /// Whoever hears `agent.response.*`.
    #[default]
    Fleet,
    /// They, and whoever asks for the status, where the text is kept.
    Client,
    /// Only whoever asks for the status.
    Guest,
}

/// Jobs that wait for the same: of one plugin, equally urgent, for one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Queue {
    pub plugin: String,
    pub priority: Priority,
    pub model: String,
}

impl Queue {
    /// Of a job whose models are all named.
    pub fn of(plugin: &str, job: &Job) -> Self {
        let agent = job.agents.first().map(|agent| agent.model.as_str()).filter(|model| !model.is_empty());
        let model = agent.or(job.model.as_deref()).unwrap_or_default();
        Self { plugin: plugin.to_owned(), priority: job.priority, model: model.to_owned() }
    }

    /// Of a job and of its agents' own jobs.
    pub fn all_of(plugin: &str, job: &Job) -> BTreeSet<Self> {
        let models = job.agents.iter().map(|agent| &agent.model).filter(|model| !model.is_empty());
        let named =
            models.chain(job.model.as_ref().filter(|_| job.agents.iter().any(|a| a.model.is_empty())));
        let queue =
            |model: &String| Self { plugin: plugin.to_owned(), priority: job.priority, model: model.clone() };
        named.map(queue).chain([Self::of(plugin, job)]).collect()
    }

    /// The id of a job in this queue; it says where the job lies. `own` is of letters, digits and `-`.
    pub fn id(&self, own: &str) -> String {
        format!("{}_{}_{}_{own}", self.plugin, word(self.priority), model_token(&self.model))
    }

    /// Of all its jobs.
    pub fn filter(&self) -> String {
        format!("cd.j.{}.*", self.tokens())
    }

    /// Where it is told that there is such a queue.
    pub fn notice(&self) -> String {
        format!("cd.u.{}", self.tokens())
    }

    /// The durable that hands out its jobs.
    pub fn durable(&self) -> String {
        format!("{DURABLE}-{}", self.tokens().replace('.', "-"))
    }

    fn tokens(&self) -> String {
        format!("{}.{}.{}", self.plugin, word(self.priority), model_token(&self.model))
    }
}

/// What the durables of all queues begin with.
pub const DURABLE: &str = "cofferdam-jobs";

/// Whether a durable of this name may be a queue's.
pub fn is_durable(name: &str) -> bool {
    let mut parts = name.rsplitn(3, '-');
    let (model, priority, rest) = (parts.next(), parts.next(), parts.next());
    let hex = |token: &str| token.len() == MODEL_DIGITS && token.bytes().all(|b| b.is_ascii_hexdigit());
    rest.is_some_and(|rest| rest.starts_with(DURABLE))
        && priority.is_some_and(|token| PRIORITIES.map(word).contains(&token))
        && model.is_some_and(hex)
}

/// All that is told of queues.
pub const NOTICES: &str = "cd.u.>";

/// Where the job with this id lies; nothing if there can be none.
pub fn subject(id: &str) -> Option<String> {
    if id.len() > MAX_ID || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return None;
    }
    let mut parts = id.rsplitn(4, '_');
    let (own, model, priority, plugin) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = !own.is_empty() && !plugin.is_empty() && !model.is_empty();
    (whole && PRIORITIES.map(word).contains(&priority))
        .then(|| format!("cd.j.{plugin}.{priority}.{model}.{id}"))
}

/// Whose job it is.
pub fn owner(id: &str) -> Option<&str> {
    subject(id)?;
    id.rsplitn(4, '_').last()
}

/// How long an answer is waited for, from submission.
pub(crate) fn patience(job: &Job) -> Duration {
    let seconds = if job.timeout_seconds == 0 { TIMEOUT_SECONDS } else { job.timeout_seconds };
    Duration::from_secs(seconds.into())
}

pub fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

fn model_token(model: &str) -> String {
    hex(&Sha256::digest(model))[..MODEL_DIGITS].to_owned()
}

/// What a job's message says of how long it is kept.
pub fn header() -> (String, String) {
    kept_for(JOB_DAYS)
}

pub(super) fn kept_for(days: u64) -> (String, String) {
    ("Nats-TTL".into(), format!("{}s", days * 24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_its_job_lies_and_whose_it_is() {
        let queue = Queue { plugin: "a_b-c".into(), priority: Priority::High, model: "Qwen/x".into() };
        let id = queue.id("0a-7-j0");
        let place = subject(&id).expect("a place");
        assert!(place.starts_with("cd.j.a_b-c.high.") && place.ends_with(&id), "{place}");
        assert_eq!(place.rsplit_once('.').map(|(queue, _)| format!("{queue}.*")), Some(queue.filter()));
        assert_eq!(owner(&id), Some("a_b-c"));
        assert!(is_durable(&queue.durable()), "{}", queue.durable());
    }

    #[test]
    fn a_plugin_may_be_called_jobs() {
        for name in [
            "cofferdam-jobs-test-in",
            "cofferdam-jobs-high-test",
            "cofferdam-jobs",
            "cofferdam-p-low-0123456789abcdef",
        ] {
            assert!(!is_durable(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_id_lies_nowhere() {
        for id in [
            "",
            "x",
            "o-1-j0",
            "p_soon_aa_1",
            "p_low_aa_",
            "_low_aa_1",
            "p_low__1",
            "p_low_a.b_1",
            "p_low_*_1",
        ] {
            assert_eq!(subject(id), None, "{id:?}");
        }
        let long = |size: usize| format!("p_low_a_{}", "1".repeat(size - 8));
        assert!(subject(&long(MAX_ID)).is_some() && subject(&long(MAX_ID + 1)).is_none());
    }

    #[test]
    fn each_agents_model_is_a_queue_of_its_own() {
        let mut whole = crate::executor::testing::job(&["a", "b", "c"]);
        whole.job.model = Some("m".into());
        whole.job.agents[1].model = "other".into();
        let models =
            |job: &Job| Queue::all_of("p", job).into_iter().map(|queue| queue.model).collect::<Vec<_>>();
        assert_eq!(models(&whole.job), ["m", "other"]);
        for agent in &mut whole.job.agents {
            agent.model = "other".into();
        }
        assert_eq!(models(&whole.job), ["other"]);
    }
}
