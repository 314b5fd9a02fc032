//! Jobs from submission to the event of their answer, through the queue and a worker, against a bare HTTP client that makes the
//! same requests at the same endpoint: how many a second, and how much longer one takes.

mod bare;
pub(crate) mod endpoint;
mod ours;

use std::time::Duration;

use crate::{
    compare::compare,
    outcome::{Goal, Outcome, median, spread},
    report::say,
    rig::Rig,
};

use self::{
    bare::{Bare, Template},
    endpoint::Endpoint,
    ours::Ours,
};

/// Names of the results that are rates, and jobs in flight.
const THROUGHPUT: [(&str, usize); 2] = [("executor/throughput-64", 64), ("executor/throughput-1000", 1000)];
const ADDED: &str = "executor/added-ms-1";
/// Events of a round of `dispatch` for one job: it costs more.
const EVENTS: u64 = 3;
/// The same where there is one at a time.
const EVENTS_ALONE: u64 = 60;
/// A round has many times what is in flight: its beginning and its end are none of the steady state.
const TIMES: u64 = 5;

/// What a side is to do in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) in_flight: usize,
    pub(crate) jobs: u64,
}

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (name, in_flight) in THROUGHPUT {
        if rig.wants(name) {
            let jobs = (rig.options.events / EVENTS).max(TIMES * in_flight as u64);
            outcomes.push(throughput(rig, name, Load { in_flight, jobs }).await);
        }
    }
    if rig.wants(ADDED) {
        let jobs = (rig.options.events / EVENTS_ALONE).max(50);
        let added = added(rig, Load { in_flight: 1, jobs }).await;
        outcomes.push(added.unwrap_or_else(|why| Outcome::void(ADDED, why)));
    }
    outcomes
}

async fn throughput(rig: &Rig, name: &str, load: Load) -> Outcome {
    let endpoint = Endpoint::start().await;
    let (mut bare, mut ours) = match sides(&endpoint, load).await {
        Ok(sides) => sides,
        Err(why) => return Outcome::void(name, why),
    };
    let goal = (load.in_flight == 64).then_some(Goal::AtLeast(0.5));
    let outcome = compare((name, "jobs/s"), rig.options.rounds, goal, Some(1), &mut bare, &mut ours).await;
    ours.end().await;
    outcome
}

/// What our side sends is what both send.
async fn sides(endpoint: &Endpoint, load: Load) -> Result<(Bare, Ours<'_>), String> {
    let mut ours = Ours::start(endpoint, load).await;
    let body = Template::of(&ours.sample().await?)?;
    Ok((Bare::new(&endpoint.address, body, load), ours))
}

/// By how many milliseconds the median job is slower than the median request.
async fn added(rig: &Rig, load: Load) -> Result<Outcome, String> {
    let endpoint = Endpoint::start().await;
    let (mut bare, mut ours) = sides(&endpoint, load).await?;
    let (rounds, mut added) = (rig.options.rounds, Vec::new());
    for round in 0..=rounds {
        let (requests, _) = bare.drive().await.map_err(|why| format!("the bare side: {why}"))?;
        endpoint.seen().await;
        let (jobs, _) = ours.drive().await.map_err(|why| format!("our side: {why}"))?;
        ours.check().await.map_err(|why| format!("our side: {why}"))?;
        let (requests, jobs) = (middle(&requests), middle(&jobs));
        let place = if round == 0 { "warming up".to_owned() } else { format!("round {round} of {rounds}") };
        say(&format!("{ADDED}: {place}: {jobs:.2} ms against {requests:.2}"));
        if round > 0 {
            added.push(jobs - requests);
        }
    }
    ours.end().await;
    Ok(Outcome {
        name: ADDED.to_owned(),
        value: Some(median(&added)),
        unit: Some("ms"),
        spread: spread(&added),
        goal: Some(Goal::AtMost(5.0)),
        ..Outcome::default()
    })
}

/// Milliseconds.
fn middle(times: &[Duration]) -> f64 {
    median(&times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>())
}
