//! The way in from outside: publish, subscribe and read on the admin port, and the commands that use it. Every test runs
//! on both buses.

mod calls;
mod commands;
mod restarts;

use std::process::Stdio;

use fleet_proto::bus::v1::{ReadRequest, StoredMessage, read_request::Start};
use harness::{
    fleet::free_address,
    nats::Server,
    process::program,
    setup::Setup,
    wait::within,
    way_in::{Client, text},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use tonic::{Code, Status, Streaming};

use crate::both::Begin;

/// A daemon's surroundings: its bus, and an admin port that stays the same over restarts.
struct Place {
    setup: Setup,
    admin: String,
    nats: Option<Server>,
}

impl Begin for Place {
    async fn on(setup: Setup, nats: Option<Server>) -> Place {
        let admin = free_address();
        Place { setup: setup.with("admin.listen", admin.as_str()), admin, nats }
    }
}

impl Place {
    fn with(mut self, change: impl FnOnce(Setup) -> Setup) -> Place {
        self.setup = change(self.setup);
        self
    }

    fn url(&self) -> String {
        format!("http://{}", self.admin)
    }

    fn client(&self) -> Client {
        Client::of(&self.admin)
    }

    /// One of the program's commands, on this daemon.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("cofferdam"));
        command
            .args(arguments)
            .env("COFFERDAM_ADMIN", self.url())
            .env_remove("COFFERDAM_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end: code, what it printed, what it complained of.
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        ended(self.command(arguments)).await
    }

    fn sub(&self, arguments: &[&str]) -> Sub {
        let mut child = self.command(&[&["sub"], arguments].concat()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Sub { child, lines }
    }
}

async fn ended(mut command: Command) -> (i32, String, String) {
    let output = within("the end of a command", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A running `cofferdam sub`.
struct Sub {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Sub {
    async fn line(&mut self) -> String {
        let line = within("a line of cofferdam sub", self.lines.next_line()).await.unwrap();
        line.expect("a line, not the end")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn end(self) -> (i32, String) {
        let output = within("the end of cofferdam sub", self.child.wait_with_output()).await.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn from(subject: &str, start: Option<Start>) -> ReadRequest {
    ReadRequest { subject: subject.to_owned(), start, ..ReadRequest::default() }
}

fn texts(all: &[StoredMessage]) -> Vec<&str> {
    all.iter().map(text).collect()
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    within("a message", stream.message()).await.unwrap().expect("a message, not the end")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}
