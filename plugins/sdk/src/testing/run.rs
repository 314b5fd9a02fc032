//! What one run did, for a test to look at.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Failure, Pairs,
    executor::{Inference, Job},
    log::Level,
    rpc::Status,
};

/// A message that became visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// `<event id>.<ordinal>`.
    pub id: String,
    pub subject: String,
    pub headers: Pairs,
    pub data: Vec<u8>,
}

impl Published {
    /// The data as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.data).unwrap_or(Value::Null)
    }

    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.data)
    }
}

/// A message for later, and the timer that was set for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// `<plugin>.<event id>.<n>`; without a manifest the plugin is `test`.
    pub id: String,
    /// Nanoseconds since the epoch.
    pub at: u64,
    pub subject: String,
    pub headers: Pairs,
    pub data: Vec<u8>,
}

impl Scheduled {
    /// The data as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.data).unwrap_or(Value::Null)
    }
}

/// A job that was handed to the executor.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    pub id: String,
    pub job: Job,
}

/// A call to an upstream, whether answered or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub upstream: String,
    pub method: String,
    pub request: Vec<u8>,
    pub error: Option<Status>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: Level,
    pub message: String,
    pub fields: Pairs,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub name: String,
    pub labels: Pairs,
    /// What was added to the counter, observed, or set last.
    pub value: f64,
}

/// The outcome of [`Host::run`](super::Host::run). What is an effect (`published`, `timers`, `cancelled`, `jobs`,
/// `cancelled_jobs`) is empty if the handler failed; calls, inferences, logs and metrics stay, for tests to look at.
#[derive(Debug, Clone)]
pub struct Run {
    pub result: Result<(), Failure>,
    pub published: Vec<Published>,
    /// Set, and not cancelled by the same run.
    pub timers: Vec<Scheduled>,
    /// Timers of other events, by id.
    pub cancelled: Vec<String>,
    pub jobs: Vec<Submitted>,
    /// Jobs that are to end, by id.
    pub cancelled_jobs: Vec<String>,
    /// What a model was asked, answered or not. What an earlier run of the event got answered is not asked again, and not here.
    pub inferences: Vec<Inference>,
    /// True if a write to state was kept.
    pub wrote: bool,
    pub calls: Vec<Call>,
    pub logs: Vec<LogLine>,
    /// Lines over the limit.
    pub logs_dropped: u64,
    pub metrics: Vec<Metric>,
}

impl Run {
    /// Nothing was run.
    pub(super) fn nothing(result: Result<(), Failure>) -> Self {
        Self {
            result,
            published: Vec::new(),
            timers: Vec::new(),
            cancelled: Vec::new(),
            jobs: Vec::new(),
            cancelled_jobs: Vec::new(),
            inferences: Vec::new(),
            wrote: false,
            calls: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            metrics: Vec::new(),
        }
    }

    /// The handler succeeded and did nothing that anybody could see.
    pub fn acked_without_effect(&self) -> bool {
        let Self { result, published, timers, cancelled, jobs, cancelled_jobs, wrote, .. } = self;
        let published = published.is_empty() && timers.is_empty() && cancelled.is_empty();
        result.is_ok() && published && jobs.is_empty() && cancelled_jobs.is_empty() && !wrote
    }

    pub fn subjects(&self) -> Vec<&str> {
        self.published.iter().map(|message| message.subject.as_str()).collect()
    }

    /// The messages of a subject, as JSON.
    pub fn on(&self, subject: &str) -> Vec<Value> {
        self.published.iter().filter(|message| message.subject == subject).map(Published::json).collect()
    }

    pub fn logged(&self, level: Level) -> Vec<&str> {
        self.logs.iter().filter(|line| line.level == level).map(|line| line.message.as_str()).collect()
    }

    /// The sum of what a metric was given, over all labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics.iter().filter(|metric| metric.name == name).map(|metric| metric.value).sum()
    }

    /// What a gauge was set to, whatever the order of its labels. A host tells it only if the handler succeeded.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        let same = |(own, wanted): (&(String, String), &(&str, &str))| own.0 == wanted.0 && own.1 == wanted.1;
        let found = self.metrics.iter().rfind(|metric| {
            metric.name == name
                && metric.labels.len() == labels.len()
                && metric.labels.iter().zip(&labels).all(same)
        });
        found.map(|metric| metric.value)
    }
}
