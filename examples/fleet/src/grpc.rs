//! What every gRPC server of this program has: a listener with a clear error, health, reflection, a graceful end.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::{Server, server::TcpIncoming},
};

/// A bound address that nothing answers on yet.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// `flag` is how the operator chooses another address.
    pub(crate) async fn new(address: &str, flag: &str) -> anyhow::Result<Bound> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("can't listen on {address}; choose another address with {flag} (port 0 is any free one)")
        })?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`, then finishes the calls it has.
    pub(crate) async fn serve(self, routes: Routes, shutdown: CancellationToken) -> anyhow::Result<()> {
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
            .with_context(|| format!("the server on {} failed", self.address))
    }
}

/// Routes with reflection, for tools such as grpcurl.
pub(crate) fn routes() -> anyhow::Result<RoutesBuilder> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(fleet_proto::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut routes = Routes::builder();
    routes.add_service(reflection);
    Ok(routes)
}
