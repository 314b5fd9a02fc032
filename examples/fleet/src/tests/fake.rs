//! A daemon's admin port as the stand-ins see it: one stream for every subject, in memory.

use std::{
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use fleet_proto::bus::v1::{
    Header, Message, PublishRequest, PublishResponse, ReadRequest, StoredMessage, SubscribeRequest,
    bus_service_server::{BusService, BusServiceServer},
    read_request::Start,
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};
use tonic::{
    Request, Response, Status, async_trait,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// What the daemon asks for, if it does.
pub(super) const TOKEN: &str = "secret";

#[derive(Clone)]
pub(super) struct Bus(Arc<Shared>);

struct Shared {
    stored: Mutex<Vec<StoredMessage>>,
    count: watch::Sender<usize>,
    /// Publishes still to be stored and answered with UNAVAILABLE.
    lose: AtomicU32,
    streamless: AtomicBool,
    guarded: bool,
}

impl Bus {
    pub(super) fn new() -> Bus {
        Bus::with(false)
    }

    pub(super) fn guarded() -> Bus {
        Bus::with(true)
    }

    fn with(guarded: bool) -> Bus {
        Bus(Arc::new(Shared {
            stored: Mutex::default(),
            count: watch::channel(0).0,
            lose: AtomicU32::new(0),
            streamless: AtomicBool::new(false),
            guarded,
        }))
    }

    pub(super) fn lose(&self, answers: u32) {
        self.0.lose.store(answers, Ordering::Relaxed);
    }

    pub(super) fn streamless(&self, so: bool) {
        self.0.streamless.store(so, Ordering::Relaxed);
    }

    /// Stores a message; it forgets ids at once, as a bus does after a long outage.
    pub(super) fn put(&self, subject: &str, headers: Vec<Header>, data: &str) -> u64 {
        let mut stored = self.0.stored.lock().unwrap();
        let sequence = stored.len() as u64 + 1;
        stored.push(StoredMessage {
            message: Some(Message { subject: subject.to_owned(), headers, data: data.to_owned().into() }),
            stream: "ALL".to_owned(),
            sequence,
            stored_at: Some(SystemTime::now().into()),
        });
        self.0.count.send_replace(stored.len());
        sequence
    }

    /// Subjects of all that is stored.
    pub(super) fn subjects(&self) -> Vec<String> {
        self.0.stored.lock().unwrap().iter().map(|stored| subject(stored).to_owned()).collect()
    }

    /// What is stored under a subject, as JSON.
    pub(super) fn bodies(&self, wanted: &str) -> Vec<serde_json::Value> {
        let stored = self.0.stored.lock().unwrap();
        let of = stored.iter().filter(|stored| subject(stored) == wanted);
        of.map(|stored| serde_json::from_slice(&stored.message.as_ref().unwrap().data).unwrap()).collect()
    }

    /// Serves until it is stopped; on a free port, or on the one it had before.
    pub(super) async fn serve(&self, at: Option<SocketAddr>) -> Running {
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut bound = None;
        // What served there before may not be quite gone.
        until("a port", async || {
            bound = TcpListener::bind(at).ok();
            bound.is_some()
        })
        .await;
        let listener = bound.unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new(BusServiceServer::new(self.clone()));
        // Of its own, so that its end is the end of all connections, as a process's is.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        Running { address, runtime: Some(runtime) }
    }

    fn allow<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if self.0.guarded && given != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("no token"));
        }
        Ok(())
    }

    /// What is stored from an index on, for ever.
    fn from(&self, index: usize) -> impl Stream<Item = StoredMessage> + Send + use<> {
        stream::unfold((self.clone(), index), async |(bus, index)| {
            bus.0.count.subscribe().wait_for(|count| *count > index).await.ok()?;
            let next = bus.0.stored.lock().unwrap()[index].clone();
            Some((next, (bus, index + 1)))
        })
    }
}

/// Ends on drop.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn subject(stored: &StoredMessage) -> &str {
    stored.message.as_ref().map_or("", |message| &message.subject)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl BusService for Bus {
    type SubscribeStream = Answers<Message>;
    type ReadStream = Answers<StoredMessage>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        self.allow(&request)?;
        if self.0.streamless.load(Ordering::Relaxed) {
            return Err(Status::not_found("no stream"));
        }
        let message = request.into_inner().message.unwrap();
        let data = String::from_utf8(message.data.to_vec()).unwrap();
        let sequence = self.put(&message.subject, message.headers, &data);
        if self.0.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(PublishResponse { stream: "ALL".to_owned(), sequence, duplicate: false }))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.allow(&request)?;
        let now = self.0.stored.lock().unwrap().len();
        let messages = self.from(now).map(|stored| Ok(stored.message.unwrap()));
        Ok(Response::new(messages.boxed()))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.allow(&request)?;
        let request = request.into_inner();
        let wanted = request.subject;
        let limit = if request.limit == 0 { usize::MAX } else { usize::try_from(request.limit).unwrap() };
        let count = self.0.stored.lock().unwrap().len();
        let start = match request.start {
            Some(Start::Sequence(sequence)) => usize::try_from(sequence).unwrap().saturating_sub(1),
            _ => 0,
        };
        let most = if request.follow { usize::MAX } else { count.saturating_sub(start) };
        let messages = self.from(start).take(most).filter(move |stored| {
            let fits = subject(stored) == wanted;
            async move { fits }
        });
        Ok(Response::new(messages.take(limit).map(Ok).boxed()))
    }
}

/// Polls until it holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
