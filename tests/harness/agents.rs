//! The fleet's agents and its product owner as a process of their own, which may be killed and come back.

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Log, Process, program};

/// `fleet agents`; gone on drop.
pub struct Agents {
    process: Process,
    data: TempDir,
    /// But for the data.
    options: Vec<String>,
}

impl Agents {
    /// With these options of `fleet agents`, among them the bus.
    pub async fn start(options: &[&str]) -> Agents {
        let data = TempDir::new().expect("a temporary directory");
        let options: Vec<String> = options.iter().copied().map(str::to_owned).collect();
        Agents { process: begin(&data, &options).await, data, options }
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// SIGTERM, and expects a clean end.
    pub async fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.end().await;
        assert!(status.success(), "{status}; their log: {}", self.process.log().text());
    }

    /// Starts them again, with what they knew.
    pub async fn up(&mut self) {
        self.process = begin(&self.data, &self.options).await;
    }

    pub fn log(&self) -> Log {
        self.process.log()
    }
}

async fn begin(data: &TempDir, options: &[String]) -> Process {
    let mut command = Command::new(program("fleet"));
    command.arg("agents").args(options).arg("--data").arg(data.path());
    let mut process = Process::start("fleet agents", command);
    let Some(ready) = process.ready().await else { panic!("fleet agents ended: {}", process.log().text()) };
    assert!(ready["agents"].is_array(), "{ready}");
    process
}
