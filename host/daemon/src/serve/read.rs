//! A call that only reads: run here and now, on cells as the bus has them, with nothing to commit.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cofferdam_bus::{Bus, Error, OtherCell};
use cofferdam_sandbox::{Limits, Reply, Request};
use tonic::Status;

use super::{
    front::{Front, Target},
    incoming::Incoming,
    keys, status,
    write::Asked,
};
use crate::{
    capabilities::{Occasion, Run, State},
    config::FailurePolicy,
    dispatch::{
        Comer, Grip, Outcome, Policy,
        invoke::{self, Task},
        judge,
    },
    observe::{metrics::Sample, trace::TraceContext},
};

/// Of a call that fails over cells that were changed while it read them.
const RUNS: u32 = 5;

/// The call's id, and its answer.
pub(super) async fn read(
    front: &Front,
    target: &Target,
    incoming: &Incoming,
    asked: Asked,
) -> (String, Result<Reply, Status>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let id = keys::once(timestamp).call;
    let reply = tokio::time::timeout_at(
        incoming.deadline.into(),
        run(front, target, incoming, asked, &id, timestamp),
    )
    .await
    .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call was not answered in its time")));
    (id, reply)
}

async fn run(
    front: &Front,
    target: &Target,
    incoming: &Incoming,
    asked: Asked,
    id: &str,
    timestamp: u64,
) -> Result<Reply, Status> {
    let Target { plugin, method } = target;
    let dispatch = front.dispatch();
    let closing = || Status::unavailable("the host is closing; ask another");
    let comer = incoming.within.as_ref().map_or(Comer::Read, |within| Comer::Within(within.depth));
    let _permits = dispatch.admission.permits(&plugin.places, comer).await.ok_or_else(closing)?;
    let wall = plugin.limits.wall.min(incoming.deadline.saturating_duration_since(Instant::now()));
    // One whose time is over learns it from whoever waits with it.
    let limits = Limits { wall: wall.max(Duration::from_millis(1)), ..plugin.limits.clone() };
    // Nobody else has a call.
    let held = Grip::new(Duration::MAX).hold(Instant::now());
    let begin = || {
        let occasion = Occasion {
            event_id: id.to_owned(),
            timestamp,
            attempt: 1,
            last_attempt: true,
            deadline: Instant::now() + limits.wall,
            order_key: asked.order_key.clone(),
            trace: TraceContext::of_event(&incoming.metadata, id, 1),
            held: held.clone(),
            within: incoming.within.clone().unwrap_or_default().read(),
            only_reads: Some(format!("{} is a method of kind \"read\", which has no effects", method.path)),
        };
        let state = State::to_read(asked.cell.clone());
        let request = Request {
            id: id.to_owned(),
            method: method.path.clone(),
            metadata: incoming.metadata.clone(),
            request: asked.request.clone(),
            timestamp,
        };
        (Run::new(dispatch.services.clone(), Arc::clone(plugin), occasion, state), Task::Call(request))
    };
    let mut runs = 1;
    loop {
        let ran = invoke::run(&dispatch.services.metrics, plugin, &limits, begin).await;
        if let Some(reason) = &ran.residue.missing {
            return Err(Status::unavailable(reason.clone()));
        }
        let once = FailurePolicy::once();
        let policy = || Policy { failure: &once, attempt: 1, seed: String::new() };
        let outcome = judge(&ran, &limits, policy);
        // Nothing follows from a failure over what never was.
        if outcome != Outcome::Done && runs < RUNS {
            match is_torn(front.bus(), &ran.residue.change.others).await {
                Ok(false) => {}
                Ok(true) => {
                    runs += 1;
                    continue;
                }
                Err(error) => return Err(Status::unavailable(error.to_string())),
            }
        }
        let counts = |sample: &&Sample| outcome == Outcome::Done || sample.outlives_failure();
        for sample in ran.residue.samples.iter().filter(counts) {
            dispatch.services.metrics.add(sample);
        }
        return Ok(match outcome {
            Outcome::Done => Ok(ran.answer.unwrap_or_default()),
            failure => {
                let error = status::of_failure(&failure);
                front.tell_of_failure(target, id, &failure);
                Err(error)
            }
        });
    }
}

/// Whether it may have seen several cells as they never were at one time.
async fn is_torn(bus: &dyn Bus, cells: &[OtherCell]) -> Result<bool, Error> {
    if cells.len() < 2 {
        return Ok(false);
    }
    for cell in cells {
        if *cell != bus.peek(&cell.space, &cell.cell).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
