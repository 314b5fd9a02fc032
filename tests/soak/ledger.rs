//! The upstream that the workload calls, as a process of its own: counts the runs of each event, and calls by idempotency
//! key. Not told what for: it knows gRPC and its journal.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use harness::codec::Plain;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};

use crate::{
    journal::{Call, Journal, Method},
    mark::now,
};

struct Counting {
    file: File,
    counts: HashMap<(Method, String), u64>,
}

#[derive(Clone)]
struct Ledger(Arc<Mutex<Counting>>);

/// Until it is killed.
pub(crate) async fn serve(listen: &str, journal: &Path) {
    let mut before = Journal::of(journal);
    before.refresh();
    let mut counts = HashMap::new();
    for call in before.runs.iter().chain(&before.once) {
        counts.insert(counted(call.method, call.event, &call.key), call.count);
    }
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(journal).expect("a journal");
    let mut text = Vec::new();
    file.read_to_end(&mut text).expect("a readable journal");
    if text.last().is_some_and(|last| *last != b'\n') {
        file.write_all(b"\n").expect("a journal");
    }
    let ledger = Ledger(Arc::new(Mutex::new(Counting { file, counts })));
    let listener = TcpListener::bind(listen).await.expect("a free port");
    writeln!(std::io::stdout().lock(), "{}", json!({ "listening": listen })).expect("standard output");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(ledger).serve_with_incoming(incoming).await.expect("a server");
}

impl Ledger {
    fn count(&self, method: Method, request: &Request<Bytes>) -> Result<Bytes, Status> {
        let metadata = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned).ok_or_else(|| Status::invalid_argument(format!("no {name}")))
        };
        let key = metadata("cofferdam-idempotency-key")?;
        let who = metadata("authorization")?.trim_start_matches("Bearer ").to_owned();
        let asked: Value = serde_json::from_slice(request.get_ref())
            .map_err(|e| Status::invalid_argument(format!("{e}")))?;
        let event = asked["event"].as_u64().ok_or_else(|| Status::invalid_argument("no event"))?;
        let mut counting = self.0.lock().expect("no poison");
        let counted = counted(method, event, &key);
        let count = counting.counts.get(&counted).unwrap_or(&0) + 1;
        let call = Call { at: now(), event, method, key, count, who };
        let line = format!("{}\n", serde_json::to_string(&call).expect("JSON"));
        counting.file.write_all(line.as_bytes()).map_err(|e| Status::internal(e.to_string()))?;
        counting.counts.insert(counted, count);
        Ok(Bytes::from(json!({ "count": count }).to_string()))
    }
}

/// Under which its number goes up.
fn counted(method: Method, event: u64, key: &str) -> (Method, String) {
    match method {
        Method::Run => (method, event.to_string()),
        Method::Count => (method, key.to_owned()),
    }
}

impl NamedService for Ledger {
    const NAME: &'static str = "soak.Ledger";
}

impl Service<http::Request<Body>> for Ledger {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = if request.uri().path().ends_with("/Run") { Method::Run } else { Method::Count };
        let counter = Counter { ledger: self.clone(), method };
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain).unary(counter, request).await) })
    }
}

/// One call.
struct Counter {
    ledger: Ledger,
    method: Method,
}

impl UnaryService<Bytes> for Counter {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = self.ledger.count(self.method, &request).map(Response::new);
        Box::pin(async move { answer })
    }
}
