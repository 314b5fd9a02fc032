//! gRPC that a plugin serves, as its clients see it: answers and statuses, keys and repeats, deaths and drains.

mod calls;
mod deaths;
mod endings;
mod keys;
mod listening;
mod order;
mod own;
mod start;

use fleet_proto::fixtures::v1::{
    AddRequest, AddResponse, End, Fate, GetRequest, GetResponse, TellRequest, TellResponse,
    ledger_service_client::LedgerServiceClient,
};
use harness::{
    counting::{Counting, SERVICE},
    daemon::Daemon,
    nats::Server,
    plugin::Plugin,
    setup::Setup,
    wait::within,
    way_in::body,
};
use tonic::{
    IntoRequest, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::both::Begin;

/// Where the ledger publishes what was added.
const ADDED: &str = "cofferdam.added";
/// An event there adds, too.
const ADD: &str = "cofferdam.add";

/// A setup with the ledger, and an upstream that it may call.
struct Ground {
    setup: Setup,
    upstream: Counting,
    nats: Option<Server>,
}

impl Begin for Ground {
    async fn on(setup: Setup, nats: Option<Server>) -> Self {
        let upstream = Counting::start().await;
        let setup = setup
            .with("grpc.listen", vec!["127.0.0.1:0"])
            .upstream("counting", &upstream.address)
            .with("upstreams.counting.timeout", "60s")
            .with("executor.backend", "offline")
            .plugin(ledger());
        Ground { setup, upstream, nats }
    }
}

impl Ground {
    fn with(mut self, plugin: Plugin) -> Self {
        self.setup = self.setup.plugin(plugin);
        self
    }

    async fn start(&self) -> Daemon {
        self.setup.start().await
    }
}

fn ledger() -> Plugin {
    Plugin::ledger()
        .every_subscription(&format!("subject = {ADD:?}\nbackoff = \"50ms\""))
        .reports_to(ADDED)
        .may("rpc", &[&format!("counting/{SERVICE}/*")])
        .may("executor", &["*"])
}

/// A client that connects with its first call, and again to whatever is there after a restart.
#[derive(Clone)]
struct Ledger(LedgerServiceClient<Channel>);

impl Ledger {
    fn of(daemon: &Daemon) -> Ledger {
        Ledger::at(daemon.grpc())
    }

    fn at(address: &str) -> Ledger {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Ledger(LedgerServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(usize::MAX))
    }

    async fn add(&self, request: impl IntoRequest<AddRequest>) -> Result<AddResponse, Status> {
        let request = request.into_request();
        within("an answer", self.0.clone().add(request)).await.map(Response::into_inner)
    }

    async fn get(&self, request: impl IntoRequest<GetRequest>) -> Result<GetResponse, Status> {
        let request = request.into_request();
        within("an answer", self.0.clone().get(request)).await.map(Response::into_inner)
    }

    async fn tell(&self, request: impl IntoRequest<TellRequest>) -> Result<TellResponse, Status> {
        let request = request.into_request();
        within("an answer", self.0.clone().tell(request)).await.map(Response::into_inner)
    }

    /// What an account holds.
    async fn sum(&self, account: &str) -> i64 {
        let request = GetRequest { account: account.to_owned(), ..GetRequest::default() };
        self.get(request).await.unwrap_or_else(|e| panic!("{account}: {e}")).sum
    }
}

fn add(account: &str, amount: i64) -> AddRequest {
    AddRequest { account: account.to_owned(), amount, ..AddRequest::default() }
}

/// The same, which calls this method of the upstream first.
fn add_calling(account: &str, method: &str) -> AddRequest {
    let calls = format!("counting/{SERVICE}/{method}");
    AddRequest { fate: Some(Fate { calls, ..Fate::default() }), ..add(account, 1) }
}

fn fate(end: End, code: i32) -> Option<Fate> {
    Some(Fate { end: end.into(), code, message: "as told".to_owned(), ..Fate::default() })
}

/// Under this idempotency key.
fn keyed<T>(key: &str, request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
    request
}

/// The calls (and events) that published, in their order.
async fn added(daemon: &Daemon) -> Vec<String> {
    let stored = daemon.stored(ADDED).await;
    stored.iter().map(|message| body(message)["by"].as_str().expect("a call").to_owned()).collect()
}
