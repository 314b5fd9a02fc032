//! JetStream's JSON API: requests, answers and error codes as the server spells them. No policy.

use std::time::Duration;

use async_nats::datetime::DateTime;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use super::link::{Link, Silence};
use crate::error::Error;

/// Codes that we decide on, from nats-server's `errors.json`.
pub(super) mod code {
    pub(in crate::nats) const CONSUMER_NOT_FOUND: u64 = 10014;
    pub(in crate::nats) const NO_MESSAGE: u64 = 10037;
    pub(in crate::nats) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub(in crate::nats) const MESSAGE_TOO_LARGE: u64 = 10054;
    pub(in crate::nats) const NO_SUCH_SEQUENCE: u64 = 10043;
    pub(in crate::nats) const NO_MESSAGE_TO_DELETE: u64 = 10057;
    pub(in crate::nats) const STREAM_NAME_IN_USE: u64 = 10058;
    pub(in crate::nats) const STREAM_NOT_FOUND: u64 = 10059;
    pub(in crate::nats) const SUBJECTS_OVERLAP: u64 = 10065;
    pub(in crate::nats) const WRONG_LAST_SEQUENCE: u64 = 10071;
    pub(in crate::nats) const NOT_ENABLED: u64 = 10076;
    pub(in crate::nats) const STORE_FAILED: u64 = 10077;
    pub(in crate::nats) const CONSUMER_EXISTS: u64 = 10148;
    pub(in crate::nats) const DUPLICATE_IN_FLIGHT: u64 = 10158;
    pub(in crate::nats) const EXPECTATION_IN_FLIGHT: u64 = 10164;
    pub(in crate::nats) const BATCH_INCOMPLETE: u64 = 10176;
    pub(in crate::nats) const TOO_MANY_BATCHES: u64 = 10210;
}

/// The server's word on what it did not do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Fault {
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

impl Fault {
    /// The same request may work later, and may even have worked.
    pub(super) fn is_passing(&self) -> bool {
        self.code >= 500
            || matches!(
                self.err_code,
                code::DUPLICATE_IN_FLIGHT
                    | code::EXPECTATION_IN_FLIGHT
                    | code::BATCH_INCOMPLETE
                    | code::TOO_MANY_BATCHES
                    | code::STORE_FAILED
            )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (NATS error {})", self.description, self.err_code)
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    Silence(Silence),
    Fault(Fault),
}

impl CallError {
    pub(super) fn is(&self, err_code: u64) -> bool {
        matches!(self, CallError::Fault(fault) if fault.err_code == err_code)
    }

    /// Worth asking again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            CallError::Silence(silence) => *silence != Silence::TooLarge,
            CallError::Fault(fault) => fault.is_passing(),
        }
    }
}

impl From<CallError> for Error {
    fn from(e: CallError) -> Error {
        match e {
            CallError::Silence(silence) => silence.into(),
            CallError::Fault(fault) if fault.is_passing() => Error::Unavailable(fault.to_string()),
            CallError::Fault(fault) => Error::Refused(fault.to_string()),
        }
    }
}

/// Every answer is an error or has the fields of its kind.
#[derive(Deserialize)]
struct MaybeFault {
    error: Option<Fault>,
}

pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CallError> {
    let unknown =
        |e: serde_json::Error| CallError::Silence(Silence::Unknown(format!("unreadable answer: {e}")));
    match serde_json::from_slice::<MaybeFault>(answer).map_err(unknown)?.error {
        Some(fault) => Err(CallError::Fault(fault)),
        None => serde_json::from_slice(answer).map_err(unknown),
    }
}

impl Link {
    /// Calls `$JS.API.<call>`.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let unknown = |e: serde_json::Error| CallError::Silence(Silence::Unknown(format!("{call}: {e}")));
        let body = serde_json::to_vec(body).map_err(unknown)?;
        let answer =
            self.ask(format!("$JS.API.{call}"), None, body.into()).await.map_err(CallError::Silence)?;
        parse(&answer.payload)
    }
}

/// A time as the server writes it, in nanoseconds since the epoch; 0 where it means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Nanos(pub(super) u64);

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Nanos, D::Error> {
        let text = String::deserialize(d)?;
        let time = async_nats::datetime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Nanos(nanos(&time)))
    }
}

pub(super) fn nanos(time: &DateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)
}

/// Negative and zero mean no limit.
pub(super) fn limit(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|v| *v > 0)
}

pub(super) fn duration_ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// What we read of a stream. Fields that an older or newer server leaves out have their zero value.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamAnswer {
    pub(super) config: StreamConfig,
    pub(super) created: Nanos,
    #[serde(default)]
    pub(super) state: StreamState,
    #[serde(default)]
    pub(super) ts: Option<Nanos>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) messages: u64,
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) first_seq: u64,
    #[serde(default)]
    pub(super) first_ts: Nanos,
    #[serde(default)]
    pub(super) last_seq: u64,
    #[serde(default)]
    pub(super) last_ts: Nanos,
}

/// A stream's settings, to send and to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    pub(super) subjects: Vec<String>,
    pub(super) retention: String,
    pub(super) storage: String,
    pub(super) discard: String,
    pub(super) num_replicas: u32,
    pub(super) max_age: u64,
    pub(super) max_msgs: i64,
    pub(super) max_bytes: i64,
    pub(super) max_msg_size: i64,
    pub(super) max_msgs_per_subject: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) duplicate_window: u64,
    pub(super) allow_rollup_hdrs: bool,
    pub(super) allow_direct: bool,
    pub(super) deny_delete: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) allow_atomic: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) allow_msg_schedules: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl StreamConfig {
    /// A file stream without limits.
    pub(super) fn new(name: &str, subjects: Vec<String>) -> StreamConfig {
        StreamConfig {
            name: name.to_owned(),
            subjects,
            retention: "limits".into(),
            storage: "file".into(),
            discard: "old".into(),
            num_replicas: 1,
            max_msgs: -1,
            max_bytes: -1,
            max_msg_size: -1,
            max_msgs_per_subject: -1,
            ..StreamConfig::default()
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct StreamPage {
    #[serde(default)]
    pub(super) total: u64,
    #[serde(default)]
    pub(super) streams: Option<Vec<StreamAnswer>>,
    /// Names of those whose leader did not answer the node that we asked, as while one is elected.
    #[serde(default)]
    pub(super) missing: Option<Vec<String>>,
}

/// What we read of a consumer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConsumerAnswer {
    pub(super) config: ConsumerConfig,
    pub(super) created: Nanos,
    pub(super) name: String,
    #[serde(default)]
    pub(super) delivered: SequencePair,
    #[serde(default)]
    pub(super) ack_floor: SequencePair,
    #[serde(default)]
    pub(super) num_ack_pending: u64,
    #[serde(default)]
    pub(super) num_pending: u64,
    #[serde(default)]
    pub(super) priority_groups: Vec<PriorityGroup>,
    #[serde(default)]
    pub(super) ts: Option<Nanos>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct SequencePair {
    #[serde(default)]
    pub(super) consumer_seq: u64,
    #[serde(default)]
    pub(super) stream_seq: u64,
}

/// Who takes what comes for a group.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PriorityGroup {
    pub(super) group: String,
    #[serde(default)]
    pub(super) pinned_client_id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ConsumerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durable_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) deliver_policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_seq: Option<u64>,
    pub(super) ack_policy: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) ack_wait: u64,
    pub(super) max_deliver: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filter_subject: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) filter_subjects: Vec<String>,
    pub(super) replay_policy: String,
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub(super) max_ack_pending: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deliver_subject: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) idle_heartbeat: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) inactive_threshold: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) headers_only: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) mem_storage: bool,
    pub(super) num_replicas: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) backoff: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority_policy: Option<String>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) priority_timeout: u64,
}

fn is_zero_i64(n: &i64) -> bool {
    *n == 0
}

#[derive(Debug, Serialize)]
pub(super) struct CreateConsumer<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: &'a ConsumerConfig,
    pub(super) action: &'static str,
}

/// The answer to a publish.
#[derive(Debug, Deserialize)]
pub(super) struct PubAck {
    pub(super) stream: String,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}
