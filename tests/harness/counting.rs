//! An upstream in the test's own process that counts: every call it gets, with its key, and answers in order. A test says
//! beforehand how the next calls of a method go, if not well.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{NamedService, UnaryService},
};

use crate::{codec::Plain, serve::serve, wait::wait_for};

/// As configuration names its methods: `test.Counting/<any>`.
pub const SERVICE: &str = <Counter as NamedService>::NAME;

/// How a call goes. Each is counted first.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answered with `answer-<n>`, where n counts all calls of the method. What happens if nothing else was said.
    Answer,
    /// The same, once the test releases it.
    Hold,
    /// Done, and answered with so many bytes.
    Bytes(usize),
    Refuse(Code),
    /// Refused as unavailable, with what gRPC calls a push-back.
    PushBack(&'static str),
}

/// A call that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub method: String,
    pub key: String,
}

/// Ends on drop.
pub struct Counting {
    pub address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Counted>>,
    replies: Mutex<BTreeMap<String, VecDeque<Reply>>>,
    released: watch::Sender<bool>,
}

impl Counting {
    pub async fn start() -> Counting {
        let shared = Arc::new(Shared::default());
        let (address, server) = serve(Counter(shared.clone())).await;
        Counting { address, shared, server }
    }

    /// How the next calls of a method go.
    pub fn next(&self, method: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut all = self.shared.replies.lock().expect("no poison");
        all.entry(method.to_owned()).or_default().extend(replies);
    }

    /// Answers what is held.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// The calls of a method, in the order in which they came.
    pub fn calls(&self, method: &str) -> Vec<Counted> {
        let calls = self.shared.calls.lock().expect("no poison");
        calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    pub async fn wait_calls(&self, method: &str, count: usize) -> Vec<Counted> {
        wait_for(&format!("{count} calls of {method}"), async || {
            Some(self.calls(method)).filter(|calls| calls.len() >= count)
        })
        .await
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Counter(Arc<Shared>);

impl NamedService for Counter {
    const NAME: &'static str = "test.Counting";
}

impl Service<http::Request<Body>> for Counter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let called = Called { shared: self.0.clone(), method };
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain).unary(called, request).await) })
    }
}

struct Called {
    shared: Arc<Shared>,
    method: String,
}

impl UnaryService<Bytes> for Called {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let key = request.metadata().get("cofferdam-idempotency-key").and_then(|key| key.to_str().ok());
        let call = Counted { method: self.method.clone(), key: key.unwrap_or_default().to_owned() };
        let count = {
            let mut calls = self.shared.calls.lock().expect("no poison");
            calls.push(call);
            calls.iter().filter(|call| call.method == self.method).count()
        };
        let reply = {
            let mut replies = self.shared.replies.lock().expect("no poison");
            replies.get_mut(&self.method).and_then(VecDeque::pop_front).unwrap_or(Reply::Answer)
        };
        let mut released = self.shared.released.subscribe();
        Box::pin(async move {
            match reply {
                Reply::Answer => {}
                // The sender lives as long as the server.
                Reply::Hold => drop(released.wait_for(|released| *released).await),
                Reply::Bytes(length) => return Ok(Response::new(vec![b'x'; length].into())),
                Reply::Refuse(code) => return Err(Status::new(code, "as it was told")),
                Reply::PushBack(when) => {
                    let mut status = Status::unavailable("as it was told");
                    let value = when.parse().expect("a value of metadata");
                    status.metadata_mut().insert("grpc-retry-pushback-ms", value);
                    return Err(status);
                }
            }
            Ok(Response::new(format!("answer-{count}").into()))
        })
    }
}
