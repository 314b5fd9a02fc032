//! End-to-end tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod bad_input;
mod bus;
mod check;
mod executor;
mod flow;
mod grants;
mod jobs;
mod lifecycle;
mod local_flow;
mod metrics;
mod outcomes;
mod sandbox;
mod schedule;
mod start;
mod way_in;
mod zero_config;
