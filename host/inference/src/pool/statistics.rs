//! What a pool has done and is doing, in numbers.

use std::{collections::BTreeMap, time::Duration};

use super::breaker::BreakerState;
use crate::{answer::Answer, failure::Failure};

/// Upper bounds of [`Counters::first_token`], in seconds; slower ones are in its last place.
pub const FIRST_TOKEN_BUCKETS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A pool at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    pub endpoints: Vec<EndpointStatistics>,
    pub models: Vec<ModelStatistics>,
}

/// Of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointStatistics {
    pub name: String,
    /// Requests that it is working.
    pub outstanding: usize,
    pub breaker: BreakerState,
    /// How long it is left alone from now: its breaker is open, or it asked for it.
    pub rests_for: Duration,
    pub counted: Counters,
}

/// Of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStatistics {
    pub name: String,
    pub running: usize,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest: Duration,
    pub counted: Counters,
}

/// What has been since the pool was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    pub answers: u64,
    /// By [`Kind::as_str`](crate::Kind::as_str); each failed try counts.
    pub failures: BTreeMap<&'static str, u64>,
    /// Requests that were sent again after a try that failed.
    pub retries: u64,
    /// Those among [`Counters::retries`] whose failed try may have been worked, and paid for.
    pub repeats: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Answers without a count of tokens.
    pub without_usage: u64,
    /// Streams by the time to their first token: one count for each of [`FIRST_TOKEN_BUCKETS`], not summed up, and one
    /// for the rest.
    pub first_token: [u64; FIRST_TOKEN_BUCKETS.len() + 1],
    /// All those times together.
    pub first_token_sum: Duration,
}

impl Counters {
    pub(super) fn answered(&mut self, answer: &Answer) {
        self.answers += 1;
        match answer.usage {
            Some(usage) => self.used(usage.tokens_in, usage.tokens_out),
            None => self.without_usage += 1,
        }
        if let Some(after) = answer.first_token_after {
            let place = FIRST_TOKEN_BUCKETS.iter().position(|bound| after.as_secs_f64() <= *bound);
            self.first_token[place.unwrap_or(FIRST_TOKEN_BUCKETS.len())] += 1;
            self.first_token_sum += after;
        }
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        if let Some(usage) = failure.usage {
            self.used(usage.tokens_in, usage.tokens_out);
        }
        self.ended(failure.kind.as_str());
    }

    pub(super) fn ended(&mut self, kind: &'static str) {
        *self.failures.entry(kind).or_default() += 1;
    }

    fn used(&mut self, tokens_in: u64, tokens_out: u64) {
        self.tokens_in = self.tokens_in.saturating_add(tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(tokens_out);
    }
}
