//! Failure: attempts are exact whoever dies, keys are freed or held as the subscription says, what kills the host is found
//! out and nothing else is, and nobody waits for somebody else's trouble. Every test runs on both buses.

mod attempts;
mod deaths;
mod hold;
mod pressure;
mod stop;

use fleet_proto::bus::v1::{
    Message, PublishRequest, ReadRequest, StoredMessage, bus_service_client::BusServiceClient,
};
use harness::{
    daemon::Daemon,
    nats::Server,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    setup::Setup,
    wait::wait_for,
};
use serde_json::{Value, json};

/// Each test once on each bus.
macro_rules! on_both_buses {
    ($($name:ident),* $(,)?) => {
        mod nats {
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name(crate::failure::Ground::nats().await)).await;
                }
            )*
        }
        mod local {
            $(
                #[tokio::test]
                async fn $name() {
                    Box::pin(super::$name(crate::failure::Ground::local())).await;
                }
            )*
        }
    };
}
use on_both_buses;

/// What guests take, and where they tell what they saw.
const ASKED: &str = "cofferdam.asked";
const TOLD: &str = "cofferdam.told";
/// What killed daemons held comes again soon.
const SOON: &str = "ack-wait = \"1s\"";

/// A guest that takes [`ASKED`] and tells on [`TOLD`].
fn guest(fixture: &str, subscription: &str) -> Plugin {
    Plugin::fixture(fixture).named("p").on(ASKED, subscription).reports_to(TOLD)
}

/// One that fails as often as it is told, then tells which attempt it is.
fn failing(subscription: &str) -> Plugin {
    guest("retry-then-ok", subscription)
}

/// One that calls Planning, for as long as that takes.
fn caller(subscription: &str) -> Plugin {
    guest("sleep-in-rpc", subscription).may("rpc", &[&format!("planning/{SERVICE}/GetPlanContext")])
}

/// What it is told.
fn call(key: &str) -> Value {
    json!({ "key": key, "upstream": "planning", "method": format!("{SERVICE}/GetPlanContext") })
}

/// A bus without a daemon yet.
struct Ground {
    setup: Setup,
    nats: Option<Server>,
}

impl Ground {
    async fn nats() -> Ground {
        let nats = Server::start().await;
        Ground { setup: Setup::new(&nats.url()), nats: Some(nats) }
    }

    fn local() -> Ground {
        Ground { setup: Setup::local(), nats: None }
    }

    fn plugin(self, plugin: Plugin) -> Ground {
        Ground { setup: self.setup.plugin(plugin), ..self }
    }

    fn with(self, path: &str, value: impl Into<toml::Value>) -> Ground {
        Ground { setup: self.setup.with(path, value), ..self }
    }

    fn env(self, name: &str, value: &str) -> Ground {
        Ground { setup: self.setup.env(name, value), ..self }
    }

    fn planning(self, planning: &Planning) -> Ground {
        let setup = self.setup.upstream("planning", &planning.address);
        Ground { setup: setup.with("upstreams.planning.timeout", "120s"), ..self }
    }

    async fn start(self) -> Stage {
        let daemon = self.setup.start().await;
        Stage { setup: self.setup, daemon, _nats: self.nats }
    }
}

/// With a daemon.
struct Stage {
    setup: Setup,
    daemon: Daemon,
    _nats: Option<Server>,
}

impl Stage {
    async fn client(&self) -> BusServiceClient<tonic::transport::Channel> {
        let client = BusServiceClient::connect(format!("http://{}", self.daemon.admin())).await;
        client.expect("a daemon").max_decoding_message_size(8 << 20)
    }

    async fn publish(&self, subject: &str, told: impl ToString) {
        self.send(subject, told).await.expect("a stream");
    }

    /// The same for an event whose daemon may not live to say that it has it.
    async fn send(&self, subject: &str, told: impl ToString) -> Result<(), tonic::Status> {
        let data = told.to_string().into_bytes().into();
        let message = Message { subject: subject.to_owned(), headers: Vec::new(), data };
        let request = PublishRequest { message: Some(message), ..PublishRequest::default() };
        self.client().await.publish(request).await.map(|_| ())
    }

    async fn ask(&self, told: impl ToString) {
        self.publish(ASKED, told).await;
    }

    /// All that is stored on a subject, oldest first.
    async fn stored(&self, subject: &str) -> Vec<StoredMessage> {
        let request = ReadRequest { subject: subject.to_owned(), ..ReadRequest::default() };
        let mut messages = self.client().await.read(request).await.expect("a stream").into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await.expect("a message") {
            all.push(message);
        }
        all
    }

    async fn wait_stored(&self, subject: &str, count: usize) -> Vec<StoredMessage> {
        wait_for(&format!("{count} messages on {subject}"), async || {
            let stored = self.stored(subject).await;
            (stored.len() >= count).then_some(stored)
        })
        .await
    }

    /// What the guest told, once it told so much.
    async fn told(&self, count: usize) -> Vec<Value> {
        self.wait_stored(TOLD, count).await.iter().map(body).collect()
    }

    /// The dead letters of `p`, once there are so many.
    async fn dead(&self, count: usize) -> Vec<Value> {
        self.wait_stored("cofferdam.dead.p", count).await.iter().map(body).collect()
    }

    /// So much was told, as many died; and nothing else comes of an event that is sent after them.
    async fn in_the_end(&self, told: usize, dead: usize) {
        self.told(told).await;
        self.ask(json!({ "retries": 0, "last": true })).await;
        self.told(told + 1).await;
        assert_eq!(
            (self.stored(TOLD).await.len(), self.stored("cofferdam.dead.p").await.len()),
            (told + 1, dead)
        );
    }

    /// A daemon in place of the one that was killed or stopped.
    async fn again(&mut self) {
        self.daemon = self.setup.start().await;
    }

    /// The same with another plugin in place of the one of its name.
    async fn now_with(&mut self, plugin: Plugin) {
        let setup = std::mem::replace(&mut self.setup, Setup::local());
        self.setup = setup.plugin(plugin);
        self.again().await;
    }

    async fn kill(&mut self) {
        self.daemon.kill().await;
    }
}

fn body(stored: &StoredMessage) -> Value {
    serde_json::from_slice(&stored.message.as_ref().expect("a message").data).expect("JSON")
}

fn header<'a>(stored: &'a StoredMessage, name: &str) -> &'a str {
    let headers = &stored.message.as_ref().expect("a message").headers;
    let found = headers.iter().find(|header| header.name == name);
    found.map_or_else(|| panic!("no header {name}: {stored:?}"), |header| header.value.as_str())
}
