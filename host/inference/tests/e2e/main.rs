//! The client against a real HTTP server in this process, which behaves, or not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod failures;
mod https;
mod pool;
mod real;
mod server;

use std::time::Duration;

use cofferdam_inference::{Endpoint, EndpointConfig, Failure, Limits};
use server::Server;

/// No test waits for its end; a limit is short where it is what is tested.
fn limits() -> Limits {
    let long = Duration::from_secs(60);
    Limits { connect: long, first: long, idle: long, whole: long, max_answer: 1 << 20 }
}

fn config(server: &Server) -> EndpointConfig {
    EndpointConfig { limits: limits(), ..EndpointConfig::new("gpu-1", server.url()) }
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::new(config(server)).unwrap()
}

/// What a person is told, without the address, which is another each time.
fn told(failure: &Failure, server: &Server) -> String {
    failure.to_string().replace(&server.address.to_string(), "ADDRESS")
}
