//! How things stand, now and then: what waits and is worked is looked at, and what ends is counted as its records are written.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use cofferdam_bus::{Bus, Error, Reader, Start};
use cofferdam_sandbox::JobPhase;
use fleet_proto::admin::v1::{WatchJobsRequest, WatchJobsResponse};
use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::super::{status, way_in::AHEAD};
use crate::executor::{
    look::{Crew, depth},
    status::RECORDS,
};

const SHORTEST: u32 = 200;
const LONGEST: u32 = 60_000;
const USUAL: u32 = 1000;
/// What is told by the second is told of so long.
const WINDOW: Duration = Duration::from_secs(10);

pub(super) async fn begin(
    bus: &Arc<dyn Bus>,
    request: WatchJobsRequest,
) -> Result<mpsc::Receiver<Result<WatchJobsResponse, Status>>, Status> {
    let interval = match request.interval_ms {
        0 => USUAL,
        ms @ SHORTEST..=LONGEST => ms,
        ms => {
            return Err(Status::invalid_argument(format!(
                "interval_ms is {ms}; {SHORTEST} at least and {LONGEST} at most, or 0 for {USUAL}"
            )));
        }
    };
    let stream = bus.covering(RECORDS).await.map_err(status::of)?;
    let stream = stream.ok_or_else(|| status::of(Error::NoStream { subject: RECORDS.to_owned() }))?;
    let records = bus.read(&stream.name, RECORDS, Start::End).await.map_err(status::of)?;
    let (out, progress) = mpsc::channel(AHEAD);
    let watch = Watch { bus: bus.clone(), ended: Arc::default(), seen: VecDeque::new() };
    tokio::spawn(watch.tell(records, Duration::from_millis(u64::from(interval)), out));
    Ok(progress)
}

struct Watch {
    bus: Arc<dyn Bus>,
    ended: Arc<Ended>,
    /// Jobs and tokens that had ended by then, of the last while.
    seen: VecDeque<(Instant, u64, u64)>,
}

impl Watch {
    /// Until whoever listens has gone.
    async fn tell(
        mut self,
        records: Box<dyn Reader>,
        interval: Duration,
        out: mpsc::Sender<Result<WatchJobsResponse, Status>>,
    ) {
        let count = self.ended.clone().count(records);
        let tick = async {
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                match self.look().await {
                    Ok(progress) => {
                        if out.send(Ok(progress)).await.is_err() {
                            return None;
                        }
                    }
                    // It comes back, and what ends meanwhile is counted then.
                    Err(Error::Unavailable(reason)) => tracing::debug!("no look at the jobs: {reason}"),
                    Err(error) => return Some(error),
                }
            }
        };
        let failed = tokio::select! {
            error = count => Some(error),
            error = tick => error,
            () = out.closed() => None,
        };
        if let Some(error) = failed {
            drop(out.send(Err(status::of(error))).await);
        }
    }

    async fn look(&mut self) -> Result<WatchJobsResponse, Error> {
        let crew = Crew::now(&self.bus).await?;
        let depth = depth(&self.bus).await?;
        // A report may be half a second old, and tell of a job that has ended since.
        let running = (crew.running().count() as u64).min(depth.open);
        let queued = depth.open - running;
        let [done, failed, cancelled, tokens_in, tokens_out] = self.ended.now();
        let (jobs_per_second, tokens_per_second) = self.rates(done + failed + cancelled, tokens_out);
        Ok(WatchJobsResponse {
            at: Some(SystemTime::now().into()),
            workers: u32::try_from(crew.0.len()).unwrap_or(u32::MAX),
            queued,
            running,
            done,
            failed,
            cancelled,
            tokens_in,
            tokens_out,
            jobs_per_second,
            tokens_per_second,
            oldest_seconds: depth.oldest.as_secs_f64(),
        })
    }

    fn rates(&mut self, jobs: u64, tokens: u64) -> (f64, f64) {
        let now = Instant::now();
        while self.seen.len() > 1 && self.seen.get(1).is_some_and(|(at, ..)| now - *at >= WINDOW) {
            self.seen.pop_front();
        }
        let first = self.seen.front().copied();
        self.seen.push_back((now, jobs, tokens));
        let Some((at, jobs_then, tokens_then)) = first else { return (0.0, 0.0) };
        let seconds = (now - at).as_secs_f64().max(f64::EPSILON);
        ((jobs - jobs_then) as f64 / seconds, (tokens - tokens_then) as f64 / seconds)
    }
}

/// What has ended since the watch began, of agents' jobs.
#[derive(Default)]
struct Ended {
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    tokens_in: AtomicU64,
    tokens_out: AtomicU64,
}

#[derive(Deserialize)]
struct End {
    phase: JobPhase,
    #[serde(default)]
    tokens_in: u64,
    #[serde(default)]
    tokens_out: u64,
}

impl Ended {
    /// Never ends well.
    async fn count(self: Arc<Self>, mut records: Box<dyn Reader>) -> Error {
        loop {
            match records.next().await {
                Ok(stored) => self.add(&stored.message.data),
                Err(error) => return error,
            }
        }
    }

    fn add(&self, record: &[u8]) {
        let Ok(end) = serde_json::from_slice::<End>(record) else { return };
        let counter = match end.phase {
            JobPhase::Done => &self.done,
            JobPhase::Failed => &self.failed,
            JobPhase::Cancelled => &self.cancelled,
            // Of a job that was split, or that another executor has.
            JobPhase::Unknown | JobPhase::Queued | JobPhase::Running => return,
        };
        counter.fetch_add(1, Relaxed);
        self.tokens_in.fetch_add(end.tokens_in, Relaxed);
        self.tokens_out.fetch_add(end.tokens_out, Relaxed);
    }

    fn now(&self) -> [u64; 5] {
        [&self.done, &self.failed, &self.cancelled, &self.tokens_in, &self.tokens_out]
            .map(|n| n.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::status::Record;

    #[test]
    fn what_has_ended_is_counted_and_what_has_not_is_not() {
        let ended = Ended::default();
        let record = |phase| Record { tokens_in: 2, tokens_out: 3, ..Record::new(phase) }.message("j").data;
        for phase in
            [JobPhase::Done, JobPhase::Done, JobPhase::Failed, JobPhase::Cancelled, JobPhase::Running]
        {
            ended.add(&record(phase));
        }
        ended.add(b"no record");
        assert_eq!(ended.now(), [2, 1, 1, 8, 12]);
    }
}
