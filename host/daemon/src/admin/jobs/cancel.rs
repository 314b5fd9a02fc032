//! Asking for a job's end: one stored message says so, and whoever works the job sees it.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::{Bus, Error};
use cofferdam_sandbox::JobPhase;
use fleet_proto::admin::v1::{CancelJobRequest, CancelJobResponse};
use tokio::time::Instant;
use tonic::Status;

use super::{Jobs, failed, summary::summary};
use crate::executor::{
    cancel::{self, Wished},
    look::{Crew, Standing, Whole},
};

const LONGEST: u32 = 30_000;
/// Between looks at a job that is to end.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn cancel(desk: &Jobs, request: CancelJobRequest) -> Result<CancelJobResponse, Status> {
    let CancelJobRequest { id, wait_ms } = request;
    if wait_ms > LONGEST {
        return Err(Status::invalid_argument(format!(
            "wait_ms is {wait_ms}; {LONGEST} at most, and the call may be made again"
        )));
    }
    let until = Instant::now() + Duration::from_millis(u64::from(wait_ms));
    let (mut whole, mut standing) = look(desk, &id).await?;
    let late = has_ended(&standing);
    if !late {
        // That it has just ended is seen below.
        let wished = cancel::cancel(&desk.bus, &id).await.map_err(|error| failed(&id, error))?;
        if let Wished::Elsewhere { execution_id } = wished {
            return Err(Status::failed_precondition(format!(
                "the fleet's executor has the job {id}, as {execution_id}, and takes no cancelling; its answer still comes: have \
                 whoever waits for it ignore it, or end it there"
            )));
        }
        tracing::info!(job = id, task_id = task(&whole), "an operator asked for a job's end");
        loop {
            (whole, standing) = look(desk, &id).await?;
            if has_ended(&standing) || Instant::now() + PAUSE > until {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = desk.stop.cancelled() => break,
            }
        }
    }
    Ok(CancelJobResponse { summary: Some(summary(&whole, &standing, usize::MAX)), late })
}

async fn look(desk: &Jobs, id: &str) -> Result<(Whole, Standing), Status> {
    let whole = desk.whole(id).await?;
    let crew = Crew::now(&desk.bus).await.map_err(|error| failed(id, error))?;
    let standing = whole.standing(&crew.by_job());
    Ok((whole, standing))
}

fn has_ended(standing: &Standing) -> bool {
    matches!(standing.phase, JobPhase::Done | JobPhase::Failed | JobPhase::Cancelled)
}

fn task(whole: &Whole) -> &str {
    whole.queued.as_ref().map_or("", |queued| queued.job.task_id.as_str())
}

/// Whether somebody has asked.
pub(super) async fn asked(bus: &Arc<dyn Bus>, id: &str) -> Result<bool, Error> {
    Ok(bus.last(&cancel::message(id).subject).await?.is_some())
}
