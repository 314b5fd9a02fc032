//! Our side: the crate `cofferdam-sandbox` as the daemon uses it, around a host that takes what is published and does
//! nothing with it.

use std::any::Any;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_sandbox::{Answer, Call, Ending, Event, Host, Limits, Plugin, Sandbox, SandboxConfig, Source};

use super::{EFFECT, INSTANCES, Tally};

const HOURS: Duration = Duration::from_secs(10 * 3600);

#[async_trait]
impl Host for Tally {
    async fn call(&mut self, call: Call) -> Answer {
        let Call::Emit { data, .. } = call else {
            unreachable!("the guest publishes and does nothing else: {call:?}")
        };
        self.take(data.len());
        Answer::Emit(Ok(EFFECT.to_owned()))
    }
}

pub(super) fn sandbox(cache: Option<&Path>) -> Sandbox {
    Sandbox::new(config(cache)).expect("a sandbox")
}

fn config(cache: Option<&Path>) -> SandboxConfig {
    SandboxConfig {
        cache_dir: cache.map(Path::to_owned),
        max_instances: INSTANCES,
        ..SandboxConfig::default()
    }
}

/// For a run that is stepped through, in whose time there would be hundreds.
pub(super) fn without_ticks() -> Sandbox {
    Sandbox::new(SandboxConfig { tick: HOURS, ..config(None) }).expect("a sandbox")
}

/// For the same.
pub(super) fn no_hurry() -> Limits {
    Limits { cpu: HOURS, wall: HOURS, ..Limits::default() }
}

pub(super) async fn load(sandbox: &Sandbox, bytes: &Bytes, cached: bool) -> Plugin {
    let plugin = sandbox.load(bytes.clone()).await.expect("a component");
    assert_eq!(matches!(plugin.source(), Source::Cached { .. }), cached, "{:?}", plugin.source());
    plugin
}

pub(super) async fn handle(plugin: &Plugin, event: Event, limits: &Limits) -> Tally {
    let run = plugin.handle(Box::new(Tally::default()), event, limits).await;
    assert!(matches!(run.ending, Ending::Ok), "the guest ended with {:?}", run.ending);
    let host: Box<dyn Any> = run.host;
    *host.downcast::<Tally>().expect("the host that it was given")
}
