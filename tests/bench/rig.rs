//! What the benchmarks run on: a nats-server of their own, streams for each side, and daemons with the bench's plugin.

use std::{path::Path, time::Duration};

use async_nats::jetstream::{self, stream};
use harness::{
    nats::{Server, binary},
    plugin::Plugin,
    setup::Setup,
};

use crate::{options::Options, work::Class};

pub(crate) struct Rig {
    pub(crate) options: Options,
    pub(crate) nats: Server,
    /// For what no side does itself: feeding, reading, asking.
    pub(crate) jetstream: jetstream::Context,
}

/// Where one side takes its events and where its outputs go: a stream each, so that neither side meets what the other stored.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) input_stream: String,
    pub(crate) output_stream: String,
}

impl Rig {
    pub(crate) async fn start(options: Options) -> Rig {
        let nats = Server::start().await;
        let jetstream = context(nats.client().await);
        Rig { options, nats, jetstream }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.wants(name)
    }

    /// Fresh streams in files, `NAME_IN` and `NAME_OUT`, for the subjects `name.in` and `name.out`.
    pub(crate) async fn route(&self, name: &str) -> Route {
        let upper = name.to_uppercase();
        let route = Route {
            input: format!("{name}.in"),
            output: format!("{name}.out"),
            input_stream: format!("{upper}_IN"),
            output_stream: format!("{upper}_OUT"),
        };
        for (stream, subject) in [(&route.input_stream, &route.input), (&route.output_stream, &route.output)]
        {
            let config = stream::Config {
                name: stream.clone(),
                subjects: vec![subject.clone()],
                ..Default::default()
            };
            self.jetstream.create_stream(config).await.unwrap_or_else(|e| panic!("stream {stream}: {e}"));
        }
        route
    }

    /// Nothing stays of a route, nor of the durables on it.
    pub(crate) async fn end(&self, route: &Route) {
        for stream in [&route.input_stream, &route.output_stream] {
            self.jetstream.delete_stream(stream).await.unwrap_or_else(|e| panic!("stream {stream}: {e}"));
        }
    }

    /// A daemon's configuration: on this rig's server, with the bench's plugin between these two subjects.
    pub(crate) fn setup(&self, input: &str, output: &str, class: Class, isolation: Isolation) -> Setup {
        configured(Setup::new(&self.nats.url()), &self.options)
            .plugin(plugin(input, output, class, isolation))
    }

    /// The same on the embedded bus whose data is there.
    pub(crate) fn local_setup(
        &self,
        data: &Path,
        input: &str,
        output: &str,
        class: Class,
        isolation: Isolation,
    ) -> Setup {
        let setup = Setup::local().with("bus.local", data.to_str().expect("a path in UTF-8"));
        configured(setup, &self.options).plugin(plugin(input, output, class, isolation))
    }

    /// A connection of its own for one side.
    pub(crate) async fn connection(&self) -> jetstream::Context {
        context(self.nats.client().await)
    }
}

/// What a user with this load would set, and nothing else.
fn configured(setup: Setup, options: &Options) -> Setup {
    setup
        .with("log.level", "warn")
        .with("log.format", "text")
        .with("sandbox.instances", DEFAULT_INSTANCES)
        .with("dispatch.max-in-flight", i64::try_from(options.in_flight).expect("a small number"))
}

/// The harness has fewer, for the sake of tests that run side by side.
const DEFAULT_INSTANCES: i64 = 256;

/// How many events an instance serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// One.
    Event,
    /// Many.
    Batch,
}

fn plugin(input: &str, output: &str, class: Class, isolation: Isolation) -> Plugin {
    let plugin = match class {
        // A guest that imports state has to be granted some, which the other classes have no use for.
        Class::Cell => Plugin::fixture("bench-count").state("bench"),
        Class::Publish | Class::Record => Plugin::fixture("bench"),
    };
    let plugin = plugin.named("bench").may("publish", &[output]).on(input, class.subscription());
    match isolation {
        Isolation::Event => plugin,
        Isolation::Batch => plugin.operator("isolation", "batch"),
    }
}

/// Of one publish: a busy machine is no fault of a side.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing but the benchmark itself bounds what is under way.
pub(crate) fn context(client: async_nats::Client) -> jetstream::Context {
    jetstream::ContextBuilder::new().max_ack_inflight(1 << 20).ack_timeout(PATIENCE).build(client)
}

/// As it names itself.
pub(crate) fn server_version() -> String {
    let asked = std::process::Command::new(binary() as std::path::PathBuf).arg("--version").output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|e| format!("{}: {e}", Path::new(&binary()).display()))
}
