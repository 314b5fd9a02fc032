//! The endpoint that both sides ask, a process of its own: it answers at once, and says what it has been asked.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use harness::{
    answering::{self, Asked},
    http,
    process::Process,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, process::Command};

/// What it has been asked since it was last asked for this.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// The body of the last.
    pub(crate) last: String,
}

const SEEN: &str = "/seen";

/// Until the process is killed.
pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    writeln!(std::io::stdout().lock(), "{}", serde_json::json!({ "listening": address.to_string() }))
        .expect("standard output");
    let seen: Arc<Mutex<(u64, u64, Bytes)>> = Arc::default();
    answering::serve(listener, move |asked| {
        let answer = answer(&seen, asked);
        async move { answer }
    })
    .await;
}

fn answer(seen: &Mutex<(u64, u64, Bytes)>, asked: Asked) -> Bytes {
    if asked.path == SEEN {
        let (requests, bytes, last) = std::mem::take(&mut *seen.lock().expect("no poison"));
        let last = String::from_utf8_lossy(&last).into_owned();
        return serde_json::to_vec(&Seen { requests, bytes, last }).expect("JSON").into();
    }
    let (number, _) = answering::number(&asked.body).expect("a request of the benchmark");
    let mut seen = seen.lock().expect("no poison");
    *seen = (seen.0 + 1, seen.1 + asked.body.len() as u64, asked.body);
    answering::completion(number)
}

/// It, running.
pub(crate) struct Endpoint {
    pub(crate) address: String,
    _process: Process,
}

impl Endpoint {
    pub(crate) async fn start() -> Endpoint {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.arg("--endpoint");
        let mut process = Process::start("endpoint", command);
        let ready = process.ready().await.expect("an endpoint that runs");
        Endpoint { address: ready["listening"].as_str().expect("an address").to_owned(), _process: process }
    }

    pub(crate) async fn seen(&self) -> Seen {
        let (_, body) = http::get(&self.address, SEEN).await;
        serde_json::from_str(&body).expect("JSON")
    }
}
