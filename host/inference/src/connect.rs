//! Connections to an endpoint: TCP and, for https, TLS by rustls; both within the same patience.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tower_service::Service;

/// An idle connection is kept for so long: vLLM and whatever else runs on uvicorn closes them after five seconds, and
/// what is sent at that moment is lost without a word of whether it was worked.
const KEPT: Duration = Duration::from_secs(4);

pub(crate) type Http = Client<Connector, Full<Bytes>>;

/// A client with connections of its own. `ca` are certificates in PEM to trust instead of the machine's.
pub(crate) fn client(https: bool, ca: Option<&[u8]>, patience: Duration) -> Result<Http, String> {
    // The machine's are not looked for in vain.
    let roots = if https || ca.is_some() { roots(ca)? } else { RootCertStore::empty() };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let either =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT)
        .build(Connector { either, patience }))
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let added = certificate
                .map_err(|error| error.to_string())
                .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
            added.map_err(|error| format!("a certificate in ca can't be read: {error}"))?;
        }
        if roots.is_empty() {
            return Err("ca holds no certificate; it wants PEM, -----BEGIN CERTIFICATE-----".into());
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(
                "this machine trusts no certificates; install ca-certificates, or name some in ca".into()
            );
        }
    }
    Ok(roots)
}

/// [`HttpsConnector`], but not for ever: its TCP has a time-out, its TLS has none.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    either: HttpsConnector<HttpConnector>,
    patience: Duration,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.either.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, patience) = (self.either.call(uri), self.patience);
        Box::pin(async move {
            tokio::time::timeout(patience, connecting).await.unwrap_or_else(|_| {
                let late = format!("no connection within {patience:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
            })
        })
    }
}
