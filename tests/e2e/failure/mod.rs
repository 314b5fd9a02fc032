//! Failure: attempts are exact whoever dies, keys are freed or held as the subscription says, what kills the host is found
//! out and nothing else is, and nobody waits for somebody else's trouble. Every test runs on both buses.

mod attempts;
mod deaths;
mod hold;
mod pressure;
mod stop;

use harness::{
    daemon::Daemon,
    nats::Server,
    planning::{Planning, SERVICE},
    plugin::Plugin,
    setup::Setup,
    way_in::body,
};
use serde_json::{Value, json};

use crate::both::Begin;

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

impl Begin for Ground {
    async fn on(setup: Setup, nats: Option<Server>) -> Ground {
        Ground { setup, nats }
    }
}

impl Ground {
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
    async fn ask(&self, told: impl ToString) {
        self.daemon.publish(ASKED, told).await;
    }

    /// What the guest told, once it told so much.
    async fn told(&self, count: usize) -> Vec<Value> {
        self.daemon.wait_stored(TOLD, count).await.iter().map(body).collect()
    }

    /// The dead letters of `p`, once there are so many.
    async fn dead(&self, count: usize) -> Vec<Value> {
        self.daemon.wait_stored("cofferdam.dead.p", count).await.iter().map(body).collect()
    }

    /// So much was told, as many died; and nothing else comes of an event that is sent after them.
    async fn in_the_end(&self, told: usize, dead: usize) {
        self.told(told).await;
        self.ask(json!({ "retries": 0, "last": true })).await;
        self.told(told + 1).await;
        assert_eq!(
            (self.daemon.stored(TOLD).await.len(), self.daemon.stored("cofferdam.dead.p").await.len()),
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
