//! Endpoints behind TLS. `localhost.*.pem` are for these tests alone: made by `openssl req -x509 -newkey ec -pkeyopt
//! ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=cofferdam test" -addext subjectAltName=IP:127.0.0.1 -addext
//! basicConstraints=critical,CA:FALSE`.

use std::{sync::Arc, time::Duration};

use cofferdam_inference::{ChatRequest, Endpoint, EndpointConfig, Kind, Limits, Work};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    config, limits,
    server::{Server, answer},
};

const CERTIFICATE: &[u8] = include_bytes!("localhost.cert.pem");
const KEY: &[u8] = include_bytes!("localhost.key.pem");

async fn server() -> Server {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY).unwrap(),
        )
        .unwrap();
    Server::start_with(Some(TlsAcceptor::from(Arc::new(config))), |_, _| vec![answer("Hello.")]).await
}

#[tokio::test]
async fn an_endpoint_whose_certificate_is_trusted_answers() {
    let server = server().await;
    let url = format!("https://{}/v1", server.address);
    let trusting = EndpointConfig { url, ca: Some(CERTIFICATE.to_vec()), ..config(&server) };
    let told = Endpoint::new(trusting).unwrap().complete(&ChatRequest::new("m", "hello")).await.unwrap();
    assert_eq!(told.content, "Hello.");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_unreachable_and_says_why() {
    let server = server().await;
    // Another name than the certificate's.
    let url = format!("https://localhost:{}/v1", server.address.port());
    let wrong = EndpointConfig { url, ca: Some(CERTIFICATE.to_vec()), ..config(&server) };
    let failure = Endpoint::new(wrong).unwrap().complete(&ChatRequest::new("m", "hello")).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Unreachable, Work::NotSent));
    assert!(failure.detail.contains("certificate"), "{failure}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn https_at_a_port_of_http_is_unreachable_and_http_at_a_port_of_https_is_no_http() {
    let plain = Server::saying(vec![answer("Hello.")]).await;
    let url = format!("https://{}/v1", plain.address);
    // Nobody answers a greeting that is no request.
    let limits = Limits { connect: Duration::from_millis(50), ..limits() };
    let wrong = EndpointConfig { url, ca: Some(CERTIFICATE.to_vec()), limits, ..config(&plain) };
    let failure = Endpoint::new(wrong).unwrap().complete(&ChatRequest::new("m", "hello")).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Unreachable, Work::NotSent), "{failure}");

    let server = server().await;
    let failure =
        Endpoint::new(config(&server)).unwrap().complete(&ChatRequest::new("m", "hello")).await.unwrap_err();
    assert!(matches!(failure.kind, Kind::Malformed | Kind::Truncated), "{failure}");
}

#[tokio::test]
async fn a_connection_that_never_comes_about_is_unreachable() {
    // It listens and never accepts: TCP connects, TLS waits.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let limits = Limits { connect: Duration::from_millis(50), ..limits() };
    let waits =
        EndpointConfig { ca: Some(CERTIFICATE.to_vec()), limits, ..EndpointConfig::new("gpu-1", url) };
    let failure = Endpoint::new(waits).unwrap().complete(&ChatRequest::new("m", "hello")).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Unreachable, Work::NotSent));
    assert!(failure.detail.contains("no connection within 50ms"), "{failure}");
}
