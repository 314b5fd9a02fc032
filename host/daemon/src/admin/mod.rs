//! The admin port: health, metrics, the way in to the bus, dead letters and jobs, HTTP and gRPC on one listener. On loopback unless the
//! operator says otherwise.

mod dead_letters;
mod health;
mod jobs;
mod reading;
mod rules;
mod status;
#[cfg(test)]
mod tests;
mod token;
mod way_in;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    extract::Request,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use cofferdam_bus::Bus;
use fleet_proto::{
    admin::v1::{
        dead_letters_server::{self, DeadLettersServer},
        jobs_server::{self, JobsServer},
    },
    bus::v1::bus_service_server::{BusServiceServer, SERVICE_NAME},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

pub use health::Status;

use crate::config::Secret;
use dead_letters::DeadLetters;
use jobs::Jobs;
use token::Gate;
use way_in::WayIn;

/// The largest payload that a NATS server can be told to take, and as much again for headers as any message has.
const MAX_REQUEST: usize = (64 << 20) + (1 << 20);
/// A caller whose machine vanished is noticed after these two.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long a caller may take to hear that we stop. One that takes no data is not waited for.
const GOODBYE: Duration = Duration::from_secs(2);

/// Answers until `stop`; open streams are ended then, and whoever does not take the word is left behind.
pub async fn serve(
    listener: TcpListener,
    status: Status,
    bus: Arc<dyn Bus>,
    token: Option<Secret>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(fleet_proto::FILE_DESCRIPTOR_SET)
            // The set describes the fleet as well, which is not served here.
            .with_service_name(SERVICE_NAME)
            .with_service_name(dead_letters_server::SERVICE_NAME)
            .with_service_name(jobs_server::SERVICE_NAME)
    };
    let described = "the description of the gRPC services";
    let letters = DeadLetters::new(bus.clone(), stop.clone(), status.takes.clone());
    let jobs = Jobs::new(bus.clone(), stop.clone());
    let way_in = WayIn::new(bus, stop.clone());
    let grpc = Routes::new(BusServiceServer::new(way_in).max_decoding_message_size(MAX_REQUEST))
        .add_service(DeadLettersServer::new(letters))
        .add_service(JobsServer::new(jobs))
        .add_service(reflection().build_v1().context(described)?)
        // What tools that are some years old ask for.
        .add_service(reflection().build_v1alpha().context(described)?)
        .into_axum_router()
        .route_layer(middleware::from_fn_with_state(Arc::new(Gate::new(token)), token::check));
    let router = health::routes(status).merge(grpc).fallback(unknown);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(PING));
    let served = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        served = served => served.context("the admin port"),
        () = patience => Ok(()),
    }
}

/// In the language of whoever asked.
async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    if token::is_grpc(&request) {
        return tonic::Status::unimplemented(format!(
            "{path:?} is not served here; {SERVICE_NAME} is, and so are {}, {} and server reflection",
            dead_letters_server::SERVICE_NAME,
            jobs_server::SERVICE_NAME
        ))
        .into_http();
    }
    let text = format!("{path} is not served here; /health and /metrics are, and gRPC: {SERVICE_NAME}\n");
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
