//! An OpenAI-compatible endpoint in a process of its own: `bin/endpoint.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    http,
    process::{Process, program},
    wait::wait_for,
};

/// Killed on drop.
pub struct Endpoint {
    process: Process,
    address: String,
}

/// What it has seen so far.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    pub requests: u64,
    pub by_prompt: BTreeMap<String, u64>,
    /// Requests that are being worked.
    pub open: u64,
    pub most_open: u64,
    /// Clients that went before they had their answer.
    pub gone: u64,
    pub connections: u64,
    /// The body of the last request.
    pub last: Value,
    /// Its header of that name.
    pub authorization: String,
}

impl Endpoint {
    /// Behaves as models and prompts say.
    pub async fn start() -> Endpoint {
        Endpoint::run("127.0.0.1:0", None).await
    }

    /// Behaves in this way, whatever is asked for.
    pub async fn always(behaviour: &str) -> Endpoint {
        Endpoint::run("127.0.0.1:0", Some(behaviour)).await
    }

    /// At an address, where one was before.
    pub async fn at(address: &str) -> Endpoint {
        Endpoint::run(address, None).await
    }

    async fn run(listen: &str, always: Option<&str>) -> Endpoint {
        let mut command = Command::new(program("endpoint"));
        command.args(["--listen", listen]);
        command.args(always.into_iter().flat_map(|behaviour| ["--always", behaviour]));
        let mut process = Process::start("endpoint", command);
        let ready = process.ready().await.expect("an endpoint that listens");
        let address = ready["listen"].as_str().expect("an address").to_owned();
        Endpoint { process, address }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// As an endpoint is configured.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub async fn seen(&self) -> Seen {
        let (status, body) = http::get(&self.address, "/seen").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{body}: {e}"))
    }

    /// Waits until it has seen something.
    pub async fn sees(&self, what: &str, matches: impl Fn(&Seen) -> bool) -> Seen {
        wait_for(&format!("the endpoint to see {what}"), async || {
            Some(self.seen().await).filter(|seen| matches(seen))
        })
        .await
    }

    /// What it holds goes on.
    pub async fn release(&self) {
        assert_eq!(http::get(&self.address, "/release").await.0, 200);
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }
}
