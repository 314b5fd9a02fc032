//! The sandbox with real guests: each fixture of `tests/guests` against a host that keeps what it is told. What the
//! daemon makes of an ending is not here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod endings;
mod guests;
mod host;
mod scoring;
mod serving;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_sandbox::{Ending, Event, Limits, Plugin, Sandbox, SandboxConfig, Usage};
use serde_json::Value;

use host::Host;

/// Where the guests of these tests publish.
const TARGET: &str = "test.seen";

fn sandbox() -> Sandbox {
    // Each sandbox reserves address space for its instances, and tests run side by side.
    Sandbox::new(SandboxConfig { max_instances: 4, ..SandboxConfig::default() }).expect("a sandbox")
}

async fn load(component: &Path) -> Plugin {
    let bytes = std::fs::read(component).expect("a readable component");
    sandbox().load(Bytes::from(bytes)).await.expect("a component that loads")
}

async fn fixture(name: &str) -> Plugin {
    load(&harness::guests::fixture(name)).await
}

fn event(data: impl Into<String>) -> Event {
    Event {
        id: "0123.7".to_owned(),
        subject: "test.subject".to_owned(),
        headers: vec![("X-To".to_owned(), TARGET.to_owned()), ("X-Trace".to_owned(), "t1".to_owned())],
        data: Bytes::from(data.into()),
        timestamp: 1_700_000_000_000_000_000,
    }
}

/// Enough for an unoptimised host on a busy machine, little enough for a test to wait.
fn limits() -> Limits {
    Limits { cpu: Duration::from_millis(500), wall: Duration::from_secs(30), ..Limits::default() }
}

/// A run, over.
struct Seen {
    ending: Ending,
    usage: Usage,
    host: Host,
}

impl Seen {
    /// The one message that was published, as JSON.
    fn report(&self) -> Value {
        assert_eq!(self.ending, Ending::Ok);
        let [(subject, _, data)] = self.host.published.as_slice() else {
            panic!("{} messages published", self.host.published.len())
        };
        assert_eq!(subject, TARGET);
        serde_json::from_slice(data).expect("JSON")
    }
}

async fn run(plugin: &Plugin, host: Host, event: Event, limits: &Limits) -> Seen {
    let run = plugin.handle(Box::new(host), event, limits).await;
    let (ending, usage) = (run.ending.clone(), run.usage);
    let host = *run.into_host::<Host>().expect("the host that was given");
    Seen { ending, usage, host }
}

/// Runs a fixture once on an event of this data.
async fn once(name: &str, data: impl Into<String>) -> Seen {
    run(&fixture(name).await, Host::default(), event(data), &limits()).await
}
