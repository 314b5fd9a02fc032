//! `cofferdam executor`: a worker of the job queue, beside the daemons that share its bus.

use std::path::PathBuf;

use crate::{
    config::{Config, Environment, Location},
    observe::logs,
    work::Work,
};

use super::life::{announce, live, place};

pub fn executor(file: Option<PathBuf>) -> anyhow::Result<()> {
    let location = Location::find(file);
    let config = Config::load_executor(&location, &Environment::of_process())?;
    logs::init(&config.log);
    let backend = config.executor.as_ref().map(|executor| executor.backend.name());
    tracing::info!(backend, "a worker of jobs, configured by {location}; {}", place(&config));
    live(async |shutdown| {
        let work = tokio::select! {
            work = Work::build(config) => work?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (admin, grpc, bus) = (work.admin()?.to_string(), work.grpc()?, work.bus());
        let line = serde_json::json!({ "ready": true, "admin": admin, "grpc": grpc, "bus": bus });
        work.run(shutdown, || announce(&line)).await
    })
}
