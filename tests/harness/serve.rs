//! A gRPC service in the test's own process, on a free port.

use std::convert::Infallible;

use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};

/// The address, and the task to abort in the end.
pub(crate) async fn serve<S>(service: S) -> (String, JoinHandle<()>)
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    serve_at("127.0.0.1:0", service).await
}

/// The same at an address, where one was before.
pub(crate) async fn serve_at<S>(address: &str, service: S) -> (String, JoinHandle<()>)
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(service).serve_with_incoming(incoming);
    let task = tokio::spawn(async move {
        server.await.expect("a server that runs until it is aborted");
    });
    (address, task)
}
