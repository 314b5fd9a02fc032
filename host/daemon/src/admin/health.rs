//! Health for machines and people, metrics for Prometheus: plain HTTP, open to whoever reaches the port. A probe and a
//! scraper hold no token, and nothing here changes anything or shows what events carry.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use cofferdam_bus::Connection;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::observe::metrics::Metrics;

/// What the admin port tells of.
pub struct Status {
    pub metrics: Arc<Metrics>,
    pub connection: watch::Receiver<Connection>,
    /// Each durable, and whether events are taken from it.
    pub durables: Vec<(String, watch::Receiver<bool>)>,
    pub draining: CancellationToken,
    /// Where plugins serve gRPC.
    pub grpc: Vec<SocketAddr>,
    /// Name, version and digest.
    pub plugins: Vec<(String, String, String)>,
    /// The durables that each plugin takes events from.
    pub takes: BTreeMap<String, BTreeSet<String>>,
}

pub(super) fn routes(status: Status) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(status))
}

/// Live: the process answers. Ready: the bus is in reach and events are taken. 503 unless both.
async fn health(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let reasons = not_ready(&status);
    let plugins: Vec<_> = status
        .plugins
        .iter()
        .map(|(name, version, digest)| json!({ "name": name, "version": version, "digest": digest }))
        .collect();
    let body = json!({
        "live": true,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "plugins": plugins,
        "grpc": status.grpc,
    });
    (code(&reasons), [(header::CONTENT_TYPE, "application/json")], body.to_string())
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let reasons = not_ready(&status);
    let text = if reasons.is_empty() {
        "ready\n".to_owned()
    } else {
        format!("not ready: {}\n", reasons.join("; "))
    };
    (code(&reasons), text)
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    status.metrics.bus_up.set(i64::from(*status.connection.borrow() == Connection::Up));
    match status.metrics.text() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            format!("the metrics can't be written: {error}\n"),
        ),
    }
}

fn code(reasons: &[String]) -> StatusCode {
    if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn not_ready(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Connection::Down { reason } = &*status.connection.borrow() {
        reasons.push(format!("the bus is out of reach: {reason}"));
    }
    if status.draining.is_cancelled() {
        reasons.push("draining: no new events are taken".to_owned());
        return reasons;
    }
    let idle = status.durables.iter().filter(|(_, taking)| !*taking.borrow());
    reasons.extend(idle.map(|(durable, _)| format!("no events are taken from {durable}")));
    reasons
}
