//! An HTTP server on a raw socket, which says what its script says, well-formed or not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What is done with a request.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Nothing more is said until the client has gone.
    Hold,
    Close,
    /// Nothing is said until told.
    Await(Arc<Notify>),
}

pub(crate) fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Request line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
}

type Script = dyn Fn(usize, &Seen) -> Vec<Step> + Send + Sync;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    /// A message for each client that went while it was held.
    gone: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The same for each request.
    pub(crate) async fn saying(steps: Vec<Step>) -> Self {
        Self::start(move |_, _| steps.clone()).await
    }

    /// By the number of the request, from 0.
    pub(crate) async fn start(script: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// Behind TLS, if there is an acceptor.
    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, gone) = mpsc::unbounded_channel();
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicUsize>::default());
        let script: Arc<Script> = Arc::new(script);
        let (all, count) = (seen.clone(), connections.clone());
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (tls, script, all, tell) = (tls.clone(), script.clone(), all.clone(), tell.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, script, all, tell).await,
                        // A client that does not trust us goes.
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, script, all, tell).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen, connections, gone: tokio::sync::Mutex::new(gone), task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for a client to go while it is held.
    pub(crate) async fn client_gone(&self) {
        self.gone.lock().await.recv().await.unwrap();
    }
}

/// One connection, request after request, until the script closes it.
async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    script: Arc<Script>,
    all: Arc<Mutex<Vec<Seen>>>,
    tell: mpsc::UnboundedSender<()>,
) {
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut socket, &mut buffer).await {
        let number = {
            let mut all = all.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let steps = script(number, &seen);
        let mut closes = steps.is_empty();
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    // Whether more can come on this connection, the head says.
                    closes |= bytes.starts_with(b"HTTP/1.1") && find(&bytes, b"connection: close").is_some();
                    if socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err() {
                        return;
                    }
                    // So that what is sent apart is mostly read apart.
                    tokio::task::yield_now().await;
                }
                Step::Close => closes = true,
                Step::Await(told) => told.notified().await,
                Step::Hold => {
                    let mut rest = [0; 64];
                    while !matches!(socket.read(&mut rest).await, Ok(0) | Err(_)) {}
                    tell.send(()).ok();
                    return;
                }
            }
        }
        if closes {
            socket.shutdown().await.ok();
            return;
        }
    }
}

async fn request(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if buffer.len() >= whole {
                let body = serde_json::from_slice(&buffer[end + 4..whole]).unwrap();
                buffer.drain(..whole);
                return Some(Seen { head, body });
            }
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A whole response that leaves the connection open.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> Step {
    send(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) fn json(body: &Value) -> Step {
    response("200 OK", "content-type: application/json\r\n", &body.to_string())
}

/// A usual answer.
pub(crate) fn answer(content: &str) -> Step {
    json(&serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "served-m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }))
}

/// The head of a stream that ends with its connection.
pub(crate) fn stream_head() -> Step {
    send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
}

/// A stream that ends with its connection.
pub(crate) fn stream(body: &str) -> Vec<Step> {
    vec![stream_head(), send(body)]
}

/// One event with a piece of content.
pub(crate) fn piece(content: &str) -> String {
    event(
        &serde_json::json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]}),
    )
}

pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

pub(crate) const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
pub(crate) const DONE: &str = "data: [DONE]\n\n";
