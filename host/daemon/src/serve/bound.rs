//! Addresses that are bound for gRPC, what protects them, and serving there. Knows nothing of what is served.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use crate::config::GrpcConfig;

/// A client whose machine vanished is noticed after these two.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long a client may take to hear that we stop.
const GOODBYE: Duration = Duration::from_secs(2);

/// Which of the program's gRPC ports it is, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// As the config names it.
    pub table: &'static str,
    /// That moves it.
    pub variable: &'static str,
    /// What strangers could do there.
    pub open_to: &'static str,
}

/// Where plugins are served.
pub const PLUGINS: Port =
    Port { table: "[grpc]", variable: "COFFERDAM_GRPC_LISTEN", open_to: "call what plugins serve" };
/// Where the executor is served.
pub const EXECUTOR: Port = Port {
    table: "[executor.grpc]",
    variable: "COFFERDAM_EXECUTOR_LISTEN",
    open_to: "submit jobs and see who else's run",
};

/// What proves who is there, read from its files.
#[derive(Debug, Clone)]
pub struct Tls(Option<ServerTlsConfig>);

impl Tls {
    /// A file that is no certificate or no key is an error here, before anything is bound.
    pub fn read(config: &GrpcConfig, port: Port) -> anyhow::Result<Self> {
        let Some((certificate, key)) = &config.certificate else { return Ok(Self(None)) };
        let table = port.table;
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path).with_context(|| format!("{table}: {:?} can't be read", path.display()))
        };
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(read(certificate)?, read(key)?));
        if let Some(ca) = &config.client_ca {
            tls = tls.client_ca_root(Certificate::from_pem(read(ca)?));
        }
        Server::builder().tls_config(tls.clone()).with_context(|| {
            format!(
                "{table}: {:?}, {:?}{} are no certificate, no key of it, or no certificates of an authority, in PEM",
                certificate.display(),
                key.display(),
                config.client_ca.as_ref().map(|ca| format!(", {:?}", ca.display())).unwrap_or_default()
            )
        })?;
        Ok(Self(Some(tls)))
    }
}

/// Addresses that nobody else has any more.
pub struct Bound {
    all: Vec<TcpListener>,
    tls: Tls,
    port: Port,
}

impl Bound {
    pub async fn bind(config: &GrpcConfig, tls: Tls, port: Port) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let Port { table, variable, open_to } = port;
        for listen in &config.listen {
            all.push(TcpListener::bind(listen).await.with_context(|| {
                format!(
                    "the gRPC port {listen} can't be bound; free it, or set {table} listen (or {variable}) to another"
                )
            })?);
            if !listen.ip().is_loopback() && config.client_ca.is_none() {
                tracing::warn!(
                    %listen,
                    "whoever reaches {listen} may {open_to}; with {table} client-ca clients need a certificate"
                );
            }
        }
        Ok(Self { all, tls, port })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.all.iter().map(TcpListener::local_addr).collect()
    }

    /// Answers at all of them until `end`; whoever does not take the word then is left behind.
    pub async fn serve(self, router: Router, end: CancellationToken) -> anyhow::Result<()> {
        let mut servers = JoinSet::new();
        for listener in self.all {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(PING));
            let mut server =
                Server::builder().http2_keepalive_interval(Some(PING)).http2_keepalive_timeout(Some(PONG));
            if let Tls(Some(tls)) = &self.tls {
                server = server.tls_config(tls.clone()).context(self.port.table)?;
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
        }
    }
}
