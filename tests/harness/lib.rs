//! Test harness: real servers and processes for the tests to drive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing harness fails its test")]

pub mod child;
pub mod guests;
pub mod nats;
pub mod proxy;
