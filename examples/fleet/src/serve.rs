//! `fleet serve`: Planning and Context over one database, and Planning's two ways to the bus.

use std::time::Duration;

use anyhow::Context as _;
use fleet_proto::{
    context::v1::context_service_server::ContextServiceServer,
    standin::v1::planning_admin_service_server::PlanningAdminServiceServer,
    task_derivation::v1::task_derivation_planning_service_server::TaskDerivationPlanningServiceServer,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    admin::Admin,
    bus,
    cli::Serve,
    completions,
    context::{Context, Texts},
    faults::Faults,
    grpc::{self, Bound},
    outbox, output,
    planning::Planning,
    store::Store,
};

/// How long calls in progress may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What Planning tells of.
const PUBLISHED: [&str; 4] = [
    "planning.plan.approved",
    "planning.task.created",
    "planning.story.created",
    "planning.story.transitioned",
];

/// Runs until `shutdown`. Everything is checked before the ready line is printed, but for a daemon, which may need our
/// addresses first.
pub(crate) async fn run(args: Serve, shutdown: CancellationToken) -> anyhow::Result<()> {
    let texts = Texts::read(&args.context_files)?;
    let store = Store::open(&args.data)?;
    let bus = bus::connect(&args.on, "fleet-planning").await?;
    bus.prepare(&PUBLISHED, &[completions::SUBJECT]).await?;

    let planning = Bound::new(&args.planning, "--planning").await?;
    let context = Bound::new(&args.context, "--context").await?;
    let ready = json!({
        "planning": planning.address().to_string(),
        "context": context.address().to_string(),
        "data": store.path(),
    });
    let planning = planning.serve(planning_routes(&store, &args).await?, shutdown.clone());
    let context = context.serve(context_routes(&store, texts, &args).await?, shutdown.clone());
    let outbox = outbox::run(store.clone(), bus.clone(), shutdown.clone());
    let completions = completions::run(store, bus, args.manner(), shutdown.clone());
    output::json(&ready).context("can't print the ready line")?;

    // One that fails takes the others with it: half a fleet would only look alive.
    let all = async { tokio::try_join!(planning, context, outbox, completions) };
    let ended = tokio::select! {
        ended = all => ended.map(drop),
        () = overdue(&shutdown) => {
            tracing::warn!("calls in progress were cut off");
            Ok(())
        }
    };
    shutdown.cancel();
    ended
}

/// Some time after the shutdown began.
async fn overdue(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

pub(crate) async fn planning_routes(store: &Store, args: &Serve) -> anyhow::Result<Routes> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<TaskDerivationPlanningServiceServer<Planning>>().await;
    health.set_serving::<PlanningAdminServiceServer<Admin>>().await;
    let faults = Faults::new("planning", args.planning_delay.into(), args.planning_fail, args.planning_lose);
    let mut routes = grpc::routes()?;
    routes
        .add_service(health_service)
        .add_service(TaskDerivationPlanningServiceServer::new(Planning { store: store.clone(), faults }))
        .add_service(PlanningAdminServiceServer::new(Admin { store: store.clone(), manner: args.manner() }));
    Ok(routes.routes())
}

pub(crate) async fn context_routes(store: &Store, texts: Texts, args: &Serve) -> anyhow::Result<Routes> {
    let (health, health_service) = tonic_health::server::health_reporter();
    if args.context_down {
        health.set_not_serving::<ContextServiceServer<Context>>().await;
    } else {
        health.set_serving::<ContextServiceServer<Context>>().await;
    }
    let mut routes = grpc::routes()?;
    routes.add_service(health_service).add_service(ContextServiceServer::new(Context {
        store: store.clone(),
        texts,
        down: args.context_down,
        faults: Faults::new("context", Duration::ZERO, args.context_fail, args.context_lose),
        lag: args.context_lag.into(),
    }));
    Ok(routes.routes())
}
