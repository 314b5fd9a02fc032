//! End-to-end tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod bad_input;
mod both;
mod bus;
mod calls;
mod cells;
mod check;
mod contract;
mod derivation;
mod dlq;
mod executor;
mod failure;
mod flow;
mod grants;
mod isolation;
mod jobs;
mod lifecycle;
mod local_flow;
mod metrics;
mod outcomes;
mod pressure;
mod python;
mod sandbox;
mod schedule;
mod serving;
mod start;
mod story;
mod way_in;
mod workflow;
mod zero_config;
