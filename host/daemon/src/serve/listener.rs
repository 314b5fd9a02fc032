//! Where clients reach what plugins serve: beside the methods health checks and server reflection.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::Router;
use cofferdam_bus::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    bound::{Bound, PLUGINS, Tls},
    front::{self, Front},
};
use crate::config::Config;

/// The name of the health service, as reflection tells it.
const HEALTH: &str = "grpc.health.v1.Health";
/// When a host is ready, and when its health checks say so.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    pub ready: CancellationToken,
    pub told: CancellationToken,
}

/// What answers, wherever it is reached.
pub struct Served {
    router: Router,
    reporter: HealthReporter,
    /// Of whose health it tells.
    names: Vec<String>,
}

impl Served {
    pub fn router(&self) -> Router {
        self.router.clone()
    }
}

/// Addresses that are bound, and the description of what is served there.
pub struct Listeners {
    bound: Bound,
    /// Sets of file descriptors, encoded.
    descriptors: Vec<bytes::Bytes>,
}

impl Listeners {
    pub async fn bind(config: &Config, tls: Tls) -> anyhow::Result<Self> {
        let bound = Bound::bind(&config.grpc, tls, PLUGINS).await?;
        let served = config.plugins.iter().filter(|plugin| plugin.served().next().is_some());
        let mut descriptors: Vec<bytes::Bytes> = Vec::new();
        for service in served.flat_map(|plugin| &plugin.manifest.services) {
            if !descriptors.contains(service.descriptors.bytes()) {
                descriptors.push(service.descriptors.bytes().clone());
            }
        }
        let granted = config.plugins.iter().flat_map(|plugin| plugin.served()).next();
        if let Some(method) = granted.filter(|_| bound.is_empty() && !config.calls_itself()) {
            tracing::warn!(
                "{} and perhaps more is granted to be served, and nothing listens; add listen = [\"127.0.0.1:50056\"] to \
                 [grpc]",
                method.path
            );
        }
        Ok(Self { bound, descriptors })
    }

    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.bound.addresses()
    }

    /// What is served, before anybody reaches it.
    pub async fn routes(&self, front: &Arc<Front>) -> anyhow::Result<Served> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names: Vec<String> =
            std::iter::once(String::new()).chain(front.services().into_iter().map(str::to_owned)).collect();
        tell(&reporter, &names, false).await;
        let routes = Routes::new(health)
            .add_service(self.reflection(front).build_v1().context("the description of what plugins serve")?)
            // What tools that are some years old ask for.
            .add_service(
                self.reflection(front).build_v1alpha().context("the description of what plugins serve")?,
            )
            .into_axum_router();
        let front = front.clone();
        let router = routes.fallback(move |request| front::answer(front.clone(), request));
        Ok(Served { router, reporter, names })
    }

    /// Answers until `end`; watchers of health are told then, and whoever does not take the word is left behind.
    pub async fn serve(
        self,
        served: Served,
        connection: watch::Receiver<Connection>,
        ready: Ready,
        stop: CancellationToken,
        end: CancellationToken,
    ) -> anyhow::Result<()> {
        let Served { router, reporter, names } = served;
        let answers = async {
            if self.bound.is_empty() {
                // Whoever asks is on this side of the port.
                end.cancelled().await;
                return Ok(());
            }
            self.bound.serve(router, end).await
        };
        tokio::select! {
            served = answers => served,
            () = follow_health(&reporter, &names, connection, ready, stop) => Ok(()),
        }
    }

    fn reflection(&self, front: &Front) -> tonic_reflection::server::Builder<'_> {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH);
        for set in &self.descriptors {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        // The sets describe more than is served.
        for service in front.services() {
            builder = builder.with_service_name(service);
        }
        builder
    }
}

/// Keeps the health checks up to date: ready, not draining, and the bus in reach. Never ends.
pub(crate) async fn follow_health(
    reporter: &HealthReporter,
    names: &[String],
    mut connection: watch::Receiver<Connection>,
    Ready { ready, told }: Ready,
    stop: CancellationToken,
) {
    loop {
        let up = *connection.borrow_and_update() == Connection::Up;
        let began = ready.is_cancelled();
        tell(reporter, names, up && began && !stop.is_cancelled()).await;
        if began {
            told.cancel();
        }
        tokio::select! {
            changed = connection.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = ready.cancelled(), if !began => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

async fn tell(reporter: &HealthReporter, names: &[String], serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}
