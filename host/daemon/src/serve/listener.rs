//! Where clients reach what is served: the addresses, TLS, and beside the methods health checks and server reflection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use cofferdam_bus::Connection;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::front::{self, Front};
use crate::config::{Config, GrpcConfig};

/// The name of the health service, as reflection tells it.
const HEALTH: &str = "grpc.health.v1.Health";
/// A client whose machine vanished is noticed after these two.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long a client may take to hear that we stop.
const GOODBYE: Duration = Duration::from_secs(2);

/// What proves who is there, read from its files.
#[derive(Debug, Clone)]
pub struct Tls(Option<ServerTlsConfig>);

impl Tls {
    /// A file that is no certificate or no key is an error here, before anything is bound.
    pub fn read(config: &GrpcConfig) -> anyhow::Result<Self> {
        let Some((certificate, key)) = &config.certificate else { return Ok(Self(None)) };
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path).with_context(|| format!("[grpc]: {:?} can't be read", path.display()))
        };
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(read(certificate)?, read(key)?));
        if let Some(ca) = &config.client_ca {
            tls = tls.client_ca_root(Certificate::from_pem(read(ca)?));
        }
        Server::builder().tls_config(tls.clone()).with_context(|| {
            format!(
                "[grpc]: {:?}, {:?}{} are no certificate, no key of it, or no certificates of an authority, in PEM",
                certificate.display(),
                key.display(),
                config.client_ca.as_ref().map(|ca| format!(", {:?}", ca.display())).unwrap_or_default()
            )
        })?;
        Ok(Self(Some(tls)))
    }
}

/// When a host is ready, and when its health checks say so.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    pub ready: CancellationToken,
    pub told: CancellationToken,
}

/// Addresses that are bound.
pub struct Listeners {
    all: Vec<TcpListener>,
    tls: Tls,
    /// Sets of file descriptors, encoded.
    descriptors: Vec<bytes::Bytes>,
}

impl Listeners {
    pub async fn bind(config: &Config, tls: Tls) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for listen in &config.grpc.listen {
            all.push(TcpListener::bind(listen).await.with_context(|| {
                format!(
                    "the gRPC port {listen} can't be bound; free it, or set [grpc] listen (or COFFERDAM_GRPC_LISTEN) to another"
                )
            })?);
            if !listen.ip().is_loopback() && config.grpc.client_ca.is_none() {
                tracing::warn!(
                    %listen,
                    "whoever reaches {listen} may call what plugins serve; with [grpc] client-ca clients need a certificate"
                );
            }
        }
        let served = config.plugins.iter().filter(|plugin| plugin.served().next().is_some());
        let mut descriptors: Vec<bytes::Bytes> = Vec::new();
        for service in served.flat_map(|plugin| &plugin.manifest.services) {
            if !descriptors.contains(service.descriptors.bytes()) {
                descriptors.push(service.descriptors.bytes().clone());
            }
        }
        let granted = config.plugins.iter().flat_map(|plugin| plugin.served()).next();
        if let Some(method) = granted.filter(|_| all.is_empty()) {
            tracing::warn!(
                "{} and perhaps more is granted to be served, and nothing listens; add listen = [\"127.0.0.1:50056\"] to \
                 [grpc]",
                method.path
            );
        }
        Ok(Self { all, tls, descriptors })
    }

    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.all.iter().map(TcpListener::local_addr).collect()
    }

    /// Answers until `end`; watchers of health are told then, and whoever does not take the word is left behind.
    pub async fn serve(
        self,
        front: Arc<Front>,
        connection: watch::Receiver<Connection>,
        ready: Ready,
        stop: CancellationToken,
        end: CancellationToken,
    ) -> anyhow::Result<()> {
        if self.all.is_empty() {
            ready.told.cancel();
            end.cancelled().await;
            return Ok(());
        }
        let (reporter, health) = tonic_health::server::health_reporter();
        let names: Vec<String> =
            std::iter::once(String::new()).chain(front.services().into_iter().map(str::to_owned)).collect();
        tell(&reporter, &names, false).await;
        let routes = Routes::new(health)
            .add_service(self.reflection(&front).build_v1().context("the description of what plugins serve")?)
            // What tools that are some years old ask for.
            .add_service(
                self.reflection(&front).build_v1alpha().context("the description of what plugins serve")?,
            )
            .into_axum_router();
        let router = routes.fallback(move |request| front::answer(front.clone(), request));
        let mut servers = tokio::task::JoinSet::new();
        for listener in self.all {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(PING));
            let mut server =
                Server::builder().http2_keepalive_interval(Some(PING)).http2_keepalive_timeout(Some(PONG));
            if let Tls(Some(tls)) = &self.tls {
                server = server.tls_config(tls.clone()).context("[grpc]")?;
            }
            let served = server
                .add_routes(Routes::from(router.clone()))
                .serve_with_incoming_shutdown(incoming, end.clone().cancelled_owned());
            servers.spawn(served);
        }
        let patience = async {
            end.cancelled().await;
            tokio::time::sleep(GOODBYE).await;
        };
        let all = async {
            while let Some(served) = servers.join_next().await {
                served.context("the gRPC port")?.context("the gRPC port")?;
            }
            Ok(())
        };
        tokio::select! {
            served = all => served,
            () = patience => Ok(()),
            () = follow(&reporter, &names, connection, ready, stop) => Ok(()),
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
async fn follow(
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
