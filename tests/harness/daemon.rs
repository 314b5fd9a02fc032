//! The daemon as its operator sees it: the admin port, the log, signals.

use std::process::ExitStatus;

use serde_json::Value;
use tokio::process::Command;

use crate::{
    http,
    metrics::{Scrape, counts},
    process::{Log, Process},
    wait::wait_for,
};

pub struct Daemon {
    process: Process,
    admin: String,
    grpc: Vec<String>,
    executor: Vec<String>,
    bus: String,
}

impl Daemon {
    /// Starts it and waits until it takes events.
    pub async fn start(command: Command) -> Daemon {
        let (status, log) = match Daemon::start_perhaps(command).await {
            Ok(daemon) => return daemon,
            Err(ended) => ended,
        };
        panic!("the daemon ended with {status}; its log: {}", log.text());
    }

    /// The same for one that may well die of what it finds; then its status and its log.
    pub async fn start_perhaps(command: Command) -> Result<Daemon, (ExitStatus, Log)> {
        let mut process = Process::start("cofferdam", command);
        let Some(ready) = process.ready().await else {
            return Err((process.end().await, process.log()));
        };
        assert_eq!(ready["ready"], true, "{ready}");
        let text = |key: &str| ready[key].as_str().unwrap_or_else(|| panic!("{key}: {ready}")).to_owned();
        let addresses = |key: &str| -> Vec<String> {
            ready[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        // Of `cofferdam executor` it is the only gRPC there is.
        let executor = if ready["executor"].is_array() { addresses("executor") } else { addresses("grpc") };
        Ok(Daemon { admin: text("admin"), grpc: addresses("grpc"), executor, bus: text("bus"), process })
    }

    /// The address of the admin port.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The first address where plugins serve gRPC.
    pub fn grpc(&self) -> &str {
        self.grpcs().first().expect("[grpc] listen in the test's configuration")
    }

    pub fn grpcs(&self) -> &[String] {
        &self.grpc
    }

    /// The first address where the executor is served.
    pub fn executor(&self) -> &str {
        self.executor.first().expect("[executor.grpc] listen in the test's configuration")
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `local` or `nats`.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    pub async fn scrape(&self) -> Scrape {
        let (status, text) = http::get(&self.admin, "/metrics").await;
        assert_eq!(status, 200, "{text}");
        Scrape::parse(&text)
    }

    /// Scrapes until `expected` says yes; gives what moved since `before`.
    pub async fn moved(&self, what: &str, before: &Scrape, expected: impl Fn(&Scrape) -> bool) -> Scrape {
        wait_for(&format!("the metrics to show {what}"), async || {
            let moved = self.scrape().await.since(before);
            expected(&moved).then_some(moved)
        })
        .await
    }

    /// Waits for as many events as are expected, then compares what became of them: `"<plugin> <outcome> <fault>"`.
    /// Gives all that moved since `before`.
    pub async fn events<const N: usize>(&self, before: &Scrape, expected: [(&str, u64); N]) -> Scrape {
        let all: u64 = expected.iter().map(|(_, count)| count).sum();
        let counted = |moved: &Scrape| moved.events().values().sum::<u64>() >= all;
        let moved = self.moved(&format!("{all} events"), before, counted).await;
        assert_eq!(moved.events(), counts(expected));
        moved
    }

    /// Status and body of `/health`, `/health/live` or `/health/ready`.
    pub async fn health(&self, path: &str) -> (u16, String) {
        http::get(&self.admin, path).await
    }

    pub async fn wait_ready(&self, status: u16) -> String {
        wait_for(&format!("/health/ready to answer {status}"), async || {
            let (found, body) = self.health("/health/ready").await;
            (found == status).then_some(body)
        })
        .await
    }

    pub fn log(&self) -> Log {
        self.process.log()
    }

    /// The first line of the log that fits, once there is one.
    pub async fn logged(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let line = self
            .process
            .logged(what, |line| serde_json::from_str(line).is_ok_and(|line| matches(&line)))
            .await;
        serde_json::from_str(&line).expect("JSON")
    }

    /// The first line whose message contains the text.
    pub async fn says(&self, text: &str) -> Value {
        self.logged(&format!("{text:?}"), |line| message(line).contains(text)).await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// SIGSTOP: frozen in whatever it does.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }

    pub async fn end(&mut self) -> ExitStatus {
        self.process.end().await
    }

    /// SIGTERM, and expects a clean end.
    pub async fn stop(&mut self) {
        self.terminate();
        let status = self.end().await;
        assert!(status.success(), "{status}; its log: {}", self.log().text());
    }
}

/// The message of a log line.
pub fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}
