//! The way in from outside: publish, subscribe and read on the admin port, and the commands that use it. Every test runs
//! on both buses.

use std::{
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
};

use fleet_proto::bus::v1::{
    Message, PublishRequest, PublishResponse, ReadRequest, StoredMessage, SubscribeRequest,
    bus_service_client::BusServiceClient, read_request::Start,
};
use harness::{nats::Server, process::program, setup::Setup, wait::within};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};
use tonic::{Code, Status, Streaming, transport::Channel};

/// Each test once on each bus.
macro_rules! on_both_buses {
    ($($name:ident,)*) => {
        mod nats {
            use crate::way_in::Place;
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name(Place::on_nats().await)).await;
                }
            )*
        }
        mod local {
            use crate::way_in::Place;
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name(Place::on_local().await)).await;
                }
            )*
        }
    };
}

mod calls;
mod commands;
mod restarts;

/// A daemon's surroundings: its bus, and an admin port that stays the same over restarts.
struct Place {
    setup: Setup,
    admin: String,
    nats: Option<Server>,
}

impl Place {
    async fn on_nats() -> Place {
        let nats = Server::start().await;
        Place::new(Setup::new(&nats.url()), Some(nats)).await
    }

    async fn on_local() -> Place {
        let setup = Setup::new("nats://unused");
        let directory = setup.folder().join("data");
        let bus = toml::Table::from_iter([("local".to_owned(), directory.to_str().unwrap().into())]);
        Place::new(setup.with("bus", bus), None).await
    }

    async fn new(setup: Setup, nats: Option<Server>) -> Place {
        let admin = format!("127.0.0.1:{}", free_port().await);
        Place { setup: setup.with("admin.listen", admin.as_str()), admin, nats }
    }

    fn with(mut self, change: impl FnOnce(Setup) -> Setup) -> Place {
        self.setup = change(self.setup);
        self
    }

    fn url(&self) -> String {
        format!("http://{}", self.admin)
    }

    async fn client(&self) -> Client {
        Client(BusServiceClient::connect(self.url()).await.unwrap())
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

/// Below the range of outgoing connections and beside that of the nats-servers, so that it is free after a restart.
async fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 2_000) as u16;
    loop {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
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

#[derive(Clone)]
struct Client(BusServiceClient<Channel>);

impl Client {
    async fn send(&self, request: PublishRequest) -> Result<PublishResponse, Status> {
        within("a publish", self.0.clone().publish(request)).await.map(tonic::Response::into_inner)
    }

    async fn publish(&self, subject: &str, data: impl ToString) -> u64 {
        self.send(request(subject, data.to_string())).await.unwrap().sequence
    }

    async fn subscribe(&self, subjects: &[&str]) -> Streaming<Message> {
        let subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
        within("a subscription", self.0.clone().subscribe(SubscribeRequest { subjects }))
            .await
            .unwrap()
            .into_inner()
    }

    async fn read(&self, request: ReadRequest) -> Result<Streaming<StoredMessage>, Status> {
        within("a read", self.0.clone().read(request)).await.map(tonic::Response::into_inner)
    }

    /// To the end of what is stored.
    async fn read_all(&self, request: ReadRequest) -> Result<Vec<StoredMessage>, Status> {
        let mut stream = self.read(request).await?;
        let mut all = Vec::new();
        while let Some(stored) = within("a stored message", stream.message()).await? {
            all.push(stored);
        }
        Ok(all)
    }
}

fn request(subject: &str, data: impl Into<Vec<u8>>) -> PublishRequest {
    let data = data.into().into();
    let message = Message { subject: subject.to_owned(), headers: Vec::new(), data };
    PublishRequest { message: Some(message), ..PublishRequest::default() }
}

fn from(subject: &str, start: Option<Start>) -> ReadRequest {
    ReadRequest { subject: subject.to_owned(), start, ..ReadRequest::default() }
}

fn texts(all: &[StoredMessage]) -> Vec<&str> {
    all.iter().map(|s| std::str::from_utf8(&s.message.as_ref().unwrap().data).unwrap()).collect()
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
