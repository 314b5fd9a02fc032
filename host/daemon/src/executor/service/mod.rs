//! `fleet.ray_executor.v1.RayExecutorService`: the queue as the fleet's clients know an executor. A call that submits is answered once
//! its job is stored; how jobs stand is read from the bus, so whichever worker is asked tells the same.
//!
//! ```text
//! mod (the port) -> rpc (the methods) -> submit (request, sampling -> job -> queue)
//!                                     -> tell (records and reports -> answers)
//! ```

mod request;
mod rpc;
pub(super) mod sampling;
mod submit;
mod tell;

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use axum::{
    extract::Request,
    middleware::{self, Next},
};
use cofferdam_bus::Bus;
use fleet_proto::ray_executor::v1::ray_executor_service_server::{RayExecutorServiceServer, SERVICE_NAME};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    capabilities::Services,
    config::ExecutorConfig,
    serve::{Bound, Ready, follow_health},
};

/// The name of the health service, as reflection tells it.
const HEALTH: &str = "grpc.health.v1.Health";

/// Answers until `end`. From `stop` on no more jobs are taken; how they stand is told to the last.
pub async fn serve(
    bound: Bound,
    services: Arc<Services>,
    up: Ready,
    stop: CancellationToken,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let Some(config) = services.executor.clone().filter(|_| !bound.is_empty()) else {
        up.told.cancel();
        end.cancelled().await;
        return Ok(());
    };
    let described = "the description of the executor's service";
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(fleet_proto::FILE_DESCRIPTOR_SET)
            // The set describes more than is served.
            .with_service_name(HEALTH)
            .with_service_name(SERVICE_NAME)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let names = [String::new(), SERVICE_NAME.to_owned()];
    for name in &names {
        reporter.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
    }
    let (bus, metrics, largest) = (services.bus.clone(), services.metrics.clone(), config.grpc.max_request);
    let desk = Desk {
        room: Semaphore::new(config.grpc.max_calls as usize),
        services,
        config,
        began: Instant::now(),
        stop: stop.clone(),
    };
    let router = Routes::new(health)
        .add_service(RayExecutorServiceServer::new(desk).max_decoding_message_size(largest))
        .add_service(reflection().build_v1().context(described)?)
        // What tools that are some years old ask for.
        .add_service(reflection().build_v1alpha().context(described)?)
        .into_axum_router()
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let metrics = metrics.clone();
            async move { rpc::bounded(request, next, largest, &metrics).await }
        }));
    tokio::select! {
        served = bound.serve(router, end) => served,
        () = follow_health(&reporter, &names, bus.connection(), up, stop) => Ok(()),
    }
}

/// Where calls are answered. Nothing is kept between them.
struct Desk {
    services: Arc<Services>,
    config: ExecutorConfig,
    room: Semaphore,
    began: Instant,
    /// No more jobs are taken.
    stop: CancellationToken,
}

impl Desk {
    fn bus(&self) -> &Arc<dyn Bus> {
        &self.services.bus
    }
}
