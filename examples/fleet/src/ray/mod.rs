//! `fleet ray`: a stand-in for the Ray Executor. It takes deliberations as the contract has it and answers with a
//! prepared text, so that the way to a GPU and back can be tried without one. What it knows lives in memory.

mod book;
mod service;
mod worker;

use anyhow::Context as _;
use fleet_proto::ray_executor::v1::ray_executor_service_server::RayExecutorServiceServer;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use tonic::service::Routes;

use self::service::Service;
pub(crate) use self::{book::Book, worker::Worker};
use crate::{
    bus,
    cli::{Ray, Refusal},
    grpc::{self, Bound},
    output,
};

/// What agents answer unless there is a file: tasks in the block format that the derivation prompt asks for.
const SAMPLE: &str = include_str!("sample.txt");

/// Runs until `shutdown`.
pub(crate) async fn run(args: Ray, shutdown: CancellationToken) -> anyhow::Result<()> {
    let answer = match &args.answer {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("can't read the answer {} (--answer)", path.display()))?,
        None => SAMPLE.to_owned(),
    };
    let bus = bus::connect(&args.on, "fleet-ray").await?;
    bus.prepare(&[worker::COMPLETED], &[]).await?;
    let bound = Bound::new(&args.listen, "--listen").await?;
    let ready = json!({"ray": bound.address().to_string()});

    let worker = Worker {
        bus,
        envelope: args.envelope,
        answer: answer.into(),
        delay: args.delay.into(),
        fail: args.fail,
        book: Book::default(),
        shutdown: shutdown.clone(),
    };
    let routes = routes(worker, args.refuse).await?;
    output::json(&ready).context("can't print the ready line")?;
    bound.serve(routes, shutdown).await
}

pub(crate) async fn routes(worker: Worker, refuse: Option<Refusal>) -> anyhow::Result<Routes> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RayExecutorServiceServer<Service>>().await;
    let mut routes = grpc::routes()?;
    routes.add_service(health_service).add_service(RayExecutorServiceServer::new(Service { worker, refuse }));
    Ok(routes.routes())
}
