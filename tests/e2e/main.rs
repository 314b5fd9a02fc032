//! End-to-end tests.

mod answers;
mod bad_input;
mod bus;
mod executor;
mod flow;
mod grants;
mod lifecycle;
mod metrics;
mod outcomes;
mod sandbox;
mod start;
