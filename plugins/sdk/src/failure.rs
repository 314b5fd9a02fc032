//! Why an event was not handled, and which failure each of the host's errors is by default.

use std::time::Duration;

use crate::{
    config::ConfigError, executor::ExecutorError, metrics::MetricError, publish::EmitError, rpc::Status,
    state::StateError,
};

/// What a handler returns instead of `Ok`. Either way the effects are dropped.
///
/// Every error of the SDK turns into one with `?`: a retry where a later run may fare better (the bus or an
/// upstream is out of reach, a model gave no answer but may yet, the cell or the configuration can't be read), otherwise a
/// rejection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Run again; after the last attempt the event becomes a dead letter. Without `after` the subscription's
    /// back-off applies; at most one hour.
    #[error("retry: {reason}")]
    Retry { reason: String, after: Option<Duration> },
    /// Never run again: the event becomes a dead letter with this reason.
    #[error("rejected: {0}")]
    Reject(String),
}

impl Failure {
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    pub fn retry_after(reason: impl Into<String>, after: Duration) -> Self {
        Self::Retry { reason: reason.into(), after: Some(after) }
    }

    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }

    fn of(transient: bool, reason: String) -> Self {
        if transient { Self::retry(reason) } else { Self::Reject(reason) }
    }
}

impl From<EmitError> for Failure {
    fn from(error: EmitError) -> Self {
        Self::of(matches!(error, EmitError::Unavailable(_)), format!("publish: {error}"))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::of(status.is_transient(), status.to_string())
    }
}

impl From<ExecutorError> for Failure {
    fn from(error: ExecutorError) -> Self {
        Self::of(error.is_transient(), format!("executor: {error}"))
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::of(matches!(error, StateError::Unreadable { .. }), format!("state: {error}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::retry(format!("config: {error}"))
    }
}

impl From<MetricError> for Failure {
    fn from(error: MetricError) -> Self {
        Self::Reject(format!("metrics: {error}"))
    }
}
