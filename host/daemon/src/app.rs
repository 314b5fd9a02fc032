//! The daemon as a whole: everything is built and checked, then bound, then run until it is told to stop.

use std::{
    fs::DirBuilder, net::SocketAddr, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration,
};

use anyhow::{Context, bail};
use cofferdam_bus::{Bus, ConsumerSpec, Error};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Status},
    capabilities::{Services, Upstreams},
    config::{BusKind, Config, ExecutorConfig},
    dispatch::{self, Admission, Dispatch, Route, Subscriber, inbox},
    executor::{self, Shift, Worker, service},
    observe::{backlog, metrics::Metrics},
    plugins::{self, Plugin},
    serve::{self, Bound, Front, Listeners, Ready, Tls, Tokens},
    streams,
};

/// Of every durable, over all hosts. What one host takes is its own setting: a durable's must never differ between two.
const MAX_ACK_PENDING: u32 = 65_536;
/// The same, of an ordered one: a host that takes over holds all of them at once, in memory. Usually those are what one host had
/// in flight, a few hundred; at the very worst so many of 1 MiB each.
const MAX_ORDERED_PENDING: u32 = 4096;

/// How long a host that stops waits for answers of other hosts: a turn is mostly handed over in milliseconds.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// How long, then, a run waits for an answer that it has asked for: the next run of its event gets it as well.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(3);

/// What health calls the queues of jobs.
pub(crate) const QUEUES: &str = "the queues of jobs";

/// A daemon that is ready to run.
pub struct App {
    config: Config,
    services: Arc<Services>,
    /// Of jobs, where this daemon works them.
    worker: Option<Arc<Worker>>,
    plugins: Vec<Arc<Plugin>>,
    subscribers: Vec<Arc<Subscriber>>,
    dispatch: Arc<Dispatch>,
    admin: TcpListener,
    grpc: Listeners,
    /// Where the executor is served, by a daemon that works jobs.
    executor: Option<Bound>,
}

impl App {
    /// Builds everything. The order is the story: what needs nothing from outside comes first, so that a mistake in the
    /// config, a manifest or a component shows before anything is connected or bound; then the bus and the port, which
    /// somebody else may have; then what takes seconds, the compiling.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let inspected = plugins::inspect_all(&config).await?;
        let metrics = Arc::new(
            Metrics::new(config.plugins.iter().flat_map(|p| &p.manifest.metrics))
                .context("a plugin's metrics can't be registered")?,
        );
        let upstreams = Upstreams::connect(&config.upstreams)?;
        let tls = Tls::read(&config.grpc, serve::PLUGINS)?;
        let executor = match config.executor.clone().filter(|_| config.works_jobs()) {
            Some(executor) => Some((executor.clone(), Tls::read(&executor.grpc, serve::EXECUTOR)?)),
            None => None,
        };
        if let Some(executor) = &config.executor {
            executor::examine(&executor.inference)?;
        }
        let bus = connect(&config).await?;
        let admin = bind(config.admin.listen).await?;
        let grpc = Listeners::bind(&config, tls).await?;
        let executor = match executor {
            Some((executor, tls)) => Some(Bound::bind(&executor.grpc, tls, serve::EXECUTOR).await?),
            None => None,
        };
        let sandbox = plugins::sandbox(&config)?;
        let plugins = plugins::load_all(inspected, &config, &sandbox).await?;
        streams::ensure(&bus, config.bus.create_streams)
            .await
            .context("the streams of the fleet contract")?;
        let services = Arc::new(Services::new(bus, upstreams, &config, metrics));
        let worker = match services.executor.clone().filter(|_| config.works_jobs()) {
            Some(executor) => {
                prepare_jobs(&services.bus, &executor).await?;
                Some(Worker::new(services.clone(), executor, config.envelope.clone())?)
            }
            None => None,
        };
        let shared = Arc::new(Dispatch {
            services: services.clone(),
            admission: Admission::new(config.sandbox.instances, config.calls_itself()),
            config: config.dispatch.clone(),
            advisories: config.advisories,
        });
        let subscribers = subscribe(&shared, &plugins, config.bus.create_streams).await?;
        Ok(Self { config, services, worker, plugins, subscribers, dispatch: shared, admin, grpc, executor })
    }

    /// Where the admin port is.
    pub fn admin(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where plugins serve gRPC.
    pub fn grpc(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.grpc.addresses()
    }

    /// Where the executor is served.
    pub fn executor(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.executor.as_ref().map_or(Ok(Vec::new()), Bound::addresses)
    }

    /// `local` or `nats`.
    pub fn bus(&self) -> &'static str {
        self.services.bus.kind()
    }

    /// Runs until `shutdown`, then drains: no new events, what runs may finish, at most as long as the config says.
    /// `ready` is called once every subscription takes events.
    pub async fn run(self, shutdown: CancellationToken, ready: impl FnOnce()) -> anyhow::Result<()> {
        let stop = self.services.stop.clone();
        let (abort, close) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, loops) = (TaskTracker::new(), TaskTracker::new());
        let give_up = CancellationToken::new();
        let tokens = Tokens { stop: stop.clone(), abort: abort.clone(), give_up: give_up.clone() };
        let front = Arc::new(Front::new(self.dispatch, &self.plugins, self.config.grpc.clone(), tokens));
        let served = self.grpc.routes(&front).await?;
        // Before the first event, which may call what is served.
        self.services.upstreams.own().open(served.router());
        let grpc = self.grpc.addresses()?;
        for plugin in &self.plugins {
            let labels = [plugin.name.as_str(), plugin.version.as_str(), plugin.digest.as_str()];
            self.services.metrics.plugin_info.with_label_values(&labels).set(1);
        }
        let taking = watch::Sender::new(false);
        let durables = self.subscribers.iter().map(|s| (s.durable().to_owned(), s.taking()));
        let jobs_taken = self.worker.as_ref().map(|_| taking.subscribe());
        let jobs = jobs_taken.clone().map(|taking| (QUEUES.to_owned(), taking));
        let status = Status {
            metrics: self.services.metrics.clone(),
            connection: self.services.bus.connection(),
            durables: durables.chain(jobs).collect(),
            draining: stop.clone(),
            grpc,
            plugins: self
                .plugins
                .iter()
                .map(|p| (p.name.clone(), p.version.clone(), p.digest.clone()))
                .collect(),
            takes: self
                .plugins
                .iter()
                .map(|p| (p.name.clone(), p.subscriptions.iter().map(|s| s.durable.clone()).collect()))
                .collect(),
        };
        let (bus, token) = (self.services.bus.clone(), self.config.admin.token.clone());
        let mut admin = tokio::spawn(admin::serve(self.admin, status, bus, token, close.clone()));
        if let Some(worker) = self.worker {
            let (stop, abort, tasks) = (stop.clone(), abort.clone(), tasks.clone());
            loops.spawn(worker.run(Shift { stop, abort, taking, tasks }));
        }
        let (heard, up) = (CancellationToken::new(), Ready::default());
        let connection = self.services.bus.connection();
        let mut grpc =
            tokio::spawn(self.grpc.serve(served, connection, up.clone(), stop.clone(), close.clone()));
        let jobs_up = Ready::default();
        let mut executor = tokio::spawn({
            let (services, up, stop, close) =
                (self.services.clone(), jobs_up.clone(), stop.clone(), close.clone());
            async move {
                match self.executor {
                    Some(bound) => service::serve(bound, services, up, stop, close).await,
                    None => {
                        up.told.cancel();
                        close.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        tokio::spawn({
            let (front, heard, close) = (front.clone(), heard.clone(), close.clone());
            async move { front.listen(|| heard.cancel(), close).await }
        });
        let subscribers = self.subscribers.clone();
        let durables = Box::new(move || subscribers.iter().map(|s| s.origin()).collect());
        let (bus, metrics) = (self.services.bus.clone(), self.services.metrics.clone());
        loops.spawn(backlog::watch(bus, metrics, durables, stop.clone()));
        let all_take: Vec<_> = self.subscribers.iter().map(|s| s.taking()).chain(jobs_taken).collect();
        for subscriber in &self.subscribers {
            loops.spawn(subscriber.clone().run(stop.clone(), abort.clone(), tasks.clone()));
        }
        tokio::select! {
            () = async {
                tokio::join!(all(all_take), heard.cancelled());
                up.ready.cancel();
                jobs_up.ready.cancel();
                tokio::join!(up.told.cancelled(), jobs_up.told.cancelled());
            } => ready(),
            () = shutdown.cancelled() => {}
        }
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = &mut admin => Some(format!("the admin port stopped: {ended:?}")),
            ended = &mut grpc => Some(format!("the gRPC port stopped: {ended:?}")),
            ended = &mut executor => Some(format!("the executor's gRPC port stopped: {ended:?}")),
        };
        tracing::info!("draining: no new events are taken");
        stop.cancel();
        loops.close();
        tasks.close();
        let drained = async {
            loops.wait().await;
            tasks.wait().await;
            // What is left waits for other hosts, if there are any.
            let linger = if self.services.bus.is_shared() { LINGER } else { Duration::ZERO };
            if tokio::time::timeout(linger, front.answered()).await.is_err() {
                give_up.cancel();
                front.answered().await;
            }
        };
        drain(self.config.dispatch.drain, drained, &tasks, &abort).await;
        give_up.cancel();
        // Those who still wait are told, which takes no time.
        drop(tokio::time::timeout(LINGER, front.answered()).await);
        self.services.bus.flush().await;
        self.services.upstreams.own().close();
        close.cancel();
        match failed {
            None => {
                // Whoever still listens or reads hears that we stop.
                for (port, end) in
                    [("admin", admin.await), ("gRPC", grpc.await), ("executor's gRPC", executor.await)]
                {
                    if !matches!(end, Ok(Ok(()))) {
                        tracing::warn!(?end, "the {port} port did not end well");
                    }
                }
                tracing::info!("stopped");
                Ok(())
            }
            Some(failed) => bail!(failed),
        }
    }
}

/// Until each has been true.
async fn all(conditions: Vec<watch::Receiver<bool>>) {
    for mut condition in conditions {
        if condition.wait_for(|met| *met).await.is_err() {
            // Its sender is gone: nothing to wait for.
            return;
        }
    }
}

/// Looks that the durables of the queues are as this configuration wants them.
pub(crate) async fn prepare_jobs(bus: &Arc<dyn Bus>, config: &ExecutorConfig) -> anyhow::Result<()> {
    match executor::prepare(bus, config).await {
        Ok(()) => Ok(()),
        Err(error @ Error::Differs { .. }) => bail!(
            "a queue of jobs: {error}; give all who work jobs of this bus the same [executor] lease, or stop them and delete \
             the durable with `cofferdam durable delete`: jobs that have ended are not worked anew"
        ),
        Err(error) => Err(error).context("the queues of jobs"),
    }
}

/// Waits for what runs, at most as long as the operator says; then it ends the rest, which comes again.
pub(crate) async fn drain(
    patience: Duration,
    drained: impl Future<Output = ()>,
    tasks: &TaskTracker,
    abort: &CancellationToken,
) {
    if tokio::time::timeout(patience, drained).await.is_err() {
        let left = tasks.len();
        tracing::warn!(left, drain = ?patience, "the drain time is over; what still runs comes again");
        abort.cancel();
        tasks.wait().await;
    }
    abort.cancel();
}

pub(crate) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!("the admin port {listen} can't be bound; free it, or set [admin] listen (or COFFERDAM_LISTEN) to another")
    })
}

/// The directory of the embedded bus is nobody else's to read, and nothing but a directory.
fn prepare(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() && !directory.is_dir() {
        bail!(
            "{:?} is to be the directory of the embedded bus, and is a file; move it away, or choose another with [bus] \
             local",
            directory.display()
        );
    }
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        // The bus finds out as well, and tells what to do.
        tracing::debug!("{} can't be made: {error}", directory.display());
    }
    Ok(())
}

/// The bus that the configuration names.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<Arc<dyn Bus>> {
    match &config.bus.kind {
        BusKind::Local { directory } => {
            prepare(directory)?;
            let local = cofferdam_bus::local::LocalConfig { directory: directory.clone() };
            Ok(cofferdam_bus::local::open(local).await?)
        }
        BusKind::Nats(settings) => {
            let nats = cofferdam_bus::nats::NatsConfig {
                urls: settings.urls.iter().map(|url| url.reveal().to_owned()).collect(),
                credentials: settings.credentials.clone(),
                root_ca: settings.ca.clone(),
                client_certificate: settings.certificate.clone(),
                connect_timeout: settings.connect_timeout,
                name: "cofferdam".to_owned(),
                replicas: settings.replicas,
            };
            Ok(cofferdam_bus::nats::connect(nats, dispatch::undeliverable()).await?)
        }
    }
}

/// The durables of every plugin. All that fail are told at once.
async fn subscribe(
    shared: &Arc<Dispatch>,
    plugins: &[Arc<Plugin>],
    created: bool,
) -> anyhow::Result<Vec<Arc<Subscriber>>> {
    let (mut subscribers, mut faults) = (Vec::new(), Vec::new());
    let bus = &shared.services.bus;
    for plugin in plugins {
        for subscription in &plugin.subscriptions {
            let Some(stream) = bus.covering(&subscription.subject).await? else {
                let or = if created { "" } else { ", or set [bus] create-streams to true" };
                faults.push(format!(
                    "plugin {:?} subscribes to {:?}, which no stream stores; create one that covers it{or}",
                    plugin.name, subscription.subject
                ));
                continue;
            };
            let spec = ConsumerSpec {
                stream: stream.name,
                durable: subscription.durable.clone(),
                filter: subscription.subject.clone(),
                ack_wait: subscription.ack_wait,
                max_deliver: None,
                max_ack_pending: max_ack_pending(subscription.is_ordered()),
                ordered: subscription.is_ordered(),
            };
            let route = Route::new(plugin.clone(), subscription.clone());
            match subscriber(shared, route, spec, "deletes it").await {
                Ok(subscriber) => subscribers.push(subscriber),
                Err(error) => faults.push(format!("plugin {:?}: {error}", plugin.name)),
            }
        }
        let filter = inbox::filter(&plugin.name);
        let Some(stream) = bus.covering(&filter).await? else {
            faults.push(format!("plugin {:?}: no stream stores its inbox, {filter:?}", plugin.name));
            continue;
        };
        // Whatever the plugin's subscriptions are today: an inbox outlives them, and can't be made anew without repeating events.
        let spec = ConsumerSpec {
            stream: stream.name,
            durable: inbox::durable(&plugin.name),
            filter,
            ack_wait: inbox::ACK_WAIT,
            max_deliver: None,
            max_ack_pending: max_ack_pending(true),
            ordered: true,
        };
        let deleted = "deletes it, and then what came to the inbox within the last day comes again";
        match subscriber(shared, Route::inbox(plugin.clone()), spec, deleted).await {
            Ok(subscriber) => subscribers.push(subscriber),
            Err(error) => faults.push(format!("the inbox of plugin {:?}: {error}", plugin.name)),
        }
    }
    if !faults.is_empty() {
        bail!("subscriptions can't be made:\n  {}", faults.join("\n  "));
    }
    Ok(subscribers)
}

/// All hosts that share a durable agree on it.
fn max_ack_pending(ordered: bool) -> u32 {
    if ordered { MAX_ORDERED_PENDING } else { MAX_ACK_PENDING }
}

/// `deleted` says what the deletion of a durable with other settings does.
async fn subscriber(
    shared: &Arc<Dispatch>,
    route: Route,
    spec: ConsumerSpec,
    deleted: &str,
) -> Result<Arc<Subscriber>, String> {
    match shared.services.bus.ensure_consumer(&spec).await {
        Ok(origin) => Ok(Arc::new(Subscriber::new(shared.clone(), route, spec, origin))),
        Err(error @ Error::Differs { .. }) => {
            Err(format!("{error}; `cofferdam durable delete {}/{}` {deleted}", spec.stream, spec.durable))
        }
        Err(error) => Err(error.to_string()),
    }
}
