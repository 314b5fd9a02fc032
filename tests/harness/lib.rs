//! Test harness: real servers and processes for the tests to drive. What tests claim is in `e2e/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing harness fails its test"
)]

pub mod agents;
pub mod answering;
pub mod burst;
pub mod child;
pub mod churn;
pub mod cluster;
pub mod codec;
pub mod counting;
pub mod daemon;
pub mod dice;
pub mod disk;
pub mod endpoint;
pub mod executor;
pub mod fleet;
pub mod gate;
pub mod guests;
pub mod halting;
pub mod http;
pub mod jobs;
pub mod ledger;
pub mod metrics;
pub mod nats;
pub mod pipeline;
pub mod planning;
pub mod plugin;
pub mod process;
pub mod proxy;
pub mod python;
pub mod scoring;
mod serve;
pub mod setup;
pub mod wait;
pub mod way_in;
pub mod world;
