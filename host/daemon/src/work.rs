//! The executor as a process of its own: it works the jobs of a bus that it shares with daemons and other workers, and loads
//! no plugin. Everything is built and checked, then bound, then run until it is told to stop.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Status},
    app::{LINGER, QUEUES, bind, connect, drain, prepare_jobs},
    capabilities::{Services, Upstreams},
    config::{BusKind, Config},
    executor::{Shift, Worker, examine, service},
    observe::metrics::Metrics,
    serve::{self, Bound, Ready, Tls},
    streams,
};

/// A worker that is ready to run.
pub struct Work {
    config: Config,
    services: Arc<Services>,
    worker: Arc<Worker>,
    admin: TcpListener,
    grpc: Bound,
}

impl Work {
    /// Builds everything, what needs nothing from outside first.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let Some(executor) = config.executor.clone() else {
            bail!(
                "there is no [executor] in this configuration; add it, with backend = \"queue\", in the daemon's too"
            );
        };
        if let BusKind::Local { directory } = &config.bus.kind {
            bail!(
                "the bus of this configuration is embedded, in {:?}: nobody but its daemon reaches it, and that works the jobs \
                 itself; let both share a NATS server, with [bus] nats = \"nats://127.0.0.1:4222\" (or NATS_URL)",
                directory.display()
            );
        }
        let metrics = Arc::new(Metrics::new(std::iter::empty()).context("the metrics can't be registered")?);
        let upstreams = Upstreams::connect(&config.upstreams)?;
        let tls = Tls::read(&executor.grpc, serve::EXECUTOR)?;
        examine(&executor.inference)?;
        let bus = connect(&config).await?;
        let services = Arc::new(Services::new(bus, upstreams, &config, metrics));
        let worker = Worker::new(services.clone(), executor.clone(), config.envelope.clone())?;
        let admin = bind(config.admin.listen).await?;
        let grpc = Bound::bind(&executor.grpc, tls, serve::EXECUTOR).await?;
        streams::ensure(&services.bus, config.bus.create_streams)
            .await
            .context("the streams of the fleet contract")?;
        prepare_jobs(&services.bus, &executor).await?;
        Ok(Self { config, services, worker, admin, grpc })
    }

    /// Where the admin port is.
    pub fn admin(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where the executor is served.
    pub fn grpc(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.grpc.addresses()
    }

    /// `nats`.
    pub fn bus(&self) -> &'static str {
        self.services.bus.kind()
    }

    /// Runs until `shutdown`, then drains: no new jobs, what is worked may come to its end, at most as long as the config says;
    /// the rest is handed back for others. `ready` is called once jobs are taken.
    pub async fn run(self, shutdown: CancellationToken, ready: impl FnOnce()) -> anyhow::Result<()> {
        let stop = self.services.stop.clone();
        let (abort, close) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, loops) = (TaskTracker::new(), TaskTracker::new());
        let taking = watch::Sender::new(false);
        let mut takes = taking.subscribe();
        let status = Status {
            metrics: self.services.metrics.clone(),
            connection: self.services.bus.connection(),
            durables: vec![(QUEUES.to_owned(), taking.subscribe())],
            draining: stop.clone(),
            grpc: self.grpc()?,
            plugins: Vec::new(),
            takes: Default::default(),
        };
        let (bus, token) = (self.services.bus.clone(), self.config.admin.token.clone());
        let mut admin = tokio::spawn(admin::serve(self.admin, status, bus, token, close.clone()));
        let up = Ready::default();
        let mut grpc = tokio::spawn(service::serve(
            self.grpc,
            self.services.clone(),
            up.clone(),
            stop.clone(),
            close.clone(),
        ));
        let shift = Shift { stop: stop.clone(), abort: abort.clone(), taking, tasks: tasks.clone() };
        loops.spawn(self.worker.run(shift));
        tokio::select! {
            () = async {
                drop(takes.wait_for(|takes| *takes).await);
                up.ready.cancel();
                up.told.cancelled().await;
            } => ready(),
            () = shutdown.cancelled() => {}
        }
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = &mut admin => Some(format!("the admin port stopped: {ended:?}")),
            ended = &mut grpc => Some(format!("the executor's gRPC port stopped: {ended:?}")),
        };
        tracing::info!("draining: no new jobs are taken");
        stop.cancel();
        loops.close();
        tasks.close();
        let drained = async {
            loops.wait().await;
            tasks.wait().await;
        };
        drain(self.config.dispatch.drain, drained, &tasks, &abort).await;
        self.services.bus.flush().await;
        close.cancel();
        if let Some(failed) = failed {
            bail!(failed);
        }
        for (port, end) in [("admin", admin), ("gRPC", grpc)] {
            let ended = tokio::time::timeout(LINGER, end).await;
            if !matches!(ended, Ok(Ok(Ok(())))) {
                tracing::warn!(?ended, "the {port} port did not end well");
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}
