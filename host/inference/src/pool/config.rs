//! What a pool is made of.

use std::{collections::HashSet, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::breaker::Breaker;
use crate::{
    endpoint::EndpointConfig,
    failure::{Failure, Work},
};

/// Endpoints, models, and how much patience there is with them.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub endpoints: Vec<Member>,
    pub models: Vec<ModelConfig>,
    /// Tries of one request, the first included.
    pub attempts: u32,
    pub back_off: BackOff,
    pub breaker: Breaker,
    pub repeat: Repeat,
    /// How long a request waits while every endpoint of its model is left alone.
    pub patience: Duration,
    /// For a request without a deadline of its own: waiting, tries and pauses together.
    pub whole: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            models: Vec::new(),
            attempts: 4,
            back_off: BackOff::default(),
            breaker: Breaker::default(),
            repeat: Repeat::default(),
            patience: Duration::from_secs(30),
            whole: Duration::from_secs(30 * 60),
        }
    }
}

/// An endpoint of a pool.
#[derive(Debug, Clone)]
pub struct Member {
    pub endpoint: EndpointConfig,
    /// Requests at a time, of all models together.
    pub concurrency: usize,
}

/// A model, as those who ask call it.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    pub name: String,
    /// Requests at a time, at all endpoints together.
    pub concurrency: usize,
    pub served: Vec<Served>,
}

/// Where a model is to be had.
#[derive(Debug, Clone)]
pub struct Served {
    /// The endpoint's name.
    pub endpoint: String,
    /// What the endpoint calls the model, if that is another name.
    pub model: Option<String>,
}

/// The pause before a request is tried again where it failed: the first, doubled each time, up to the last; jitter at
/// most doubles each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackOff {
    pub first: Duration,
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(15) }
    }
}

impl BackOff {
    pub(super) fn pauses(&self) -> ExponentialBackoff {
        let pauses = ExponentialBuilder::new().with_min_delay(self.first).with_max_delay(self.max);
        pauses.without_max_times().with_jitter().build()
    }
}

/// Which requests are tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Those that were not worked: nothing is paid for twice.
    #[default]
    Unworked,
    /// Also those of which nobody knows: an error of the server, a connection that broke, silence.
    Unknown,
}

impl Repeat {
    pub(super) fn allows(self, failure: &Failure) -> bool {
        failure.is_safe_to_retry() || (self == Self::Unknown && failure.work == Work::Unknown)
    }
}

impl PoolConfig {
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut endpoints = HashSet::new();
        for Member { endpoint, concurrency } in &self.endpoints {
            if !endpoints.insert(endpoint.name.as_str()) {
                faults.push(format!("there are two endpoints {:?}; rename one", endpoint.name));
            }
            if *concurrency == 0 {
                faults.push(format!(
                    "endpoint {:?}: a concurrency of 0 asks nothing; say 1 or more",
                    endpoint.name
                ));
            }
        }
        let mut models = HashSet::new();
        for ModelConfig { name, concurrency, served } in &self.models {
            if !models.insert(name.as_str()) {
                faults.push(format!("there are two models {name:?}; put their endpoints together"));
            }
            if *concurrency == 0 {
                faults.push(format!("model {name:?}: a concurrency of 0 asks nothing; say 1 or more"));
            }
            if served.is_empty() {
                faults.push(format!("model {name:?} is served nowhere; name an endpoint"));
            }
            let mut at = HashSet::new();
            for Served { endpoint, .. } in served {
                if !endpoints.contains(endpoint.as_str()) {
                    faults.push(format!("model {name:?}: there is no endpoint {endpoint:?}"));
                }
                if !at.insert(endpoint.as_str()) {
                    faults.push(format!("model {name:?} names the endpoint {endpoint:?} twice"));
                }
            }
        }
        if self.attempts == 0 {
            faults.push("attempts of 0 ask nothing; say 1 or more".into());
        }
        faults
    }
}
