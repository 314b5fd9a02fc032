//! How much waits: in all queues together, and before one job.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cofferdam_bus::{Bus, Error, Start};

use crate::executor::{
    job::{NOTICES, Queue, QueuedJob},
    queues, status,
};

/// Jobs looked at that may stand before one.
const LOOKED: u64 = 1000;

/// Jobs that nobody has ended, worked or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) open: u64,
    /// How long the oldest of them has been there.
    pub(crate) oldest: Duration,
}

/// Of all queues.
pub(crate) async fn depth(bus: &Arc<dyn Bus>) -> Result<Depth, Error> {
    let mut depth = Depth::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for queue in queues::all(bus, NOTICES).await?.iter().filter_map(queues::queue) {
        let filter = queue.filter();
        let Some(stream) = bus.covering(&filter).await? else { continue };
        let backlog = match bus.durable(&stream.name, &queue.durable()).await? {
            Some(origin) => match bus.backlog(&origin).await {
                Ok(backlog) => Some((backlog.unsettled(), backlog.oldest.map(|oldest| oldest.timestamp))),
                Err(Error::Gone { .. }) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let (open, oldest) = match backlog {
            Some(backlog) => backlog,
            // Nobody has ever worked it.
            None => all_of(bus, &stream.name, &filter).await?,
        };
        depth.open += open;
        let age = oldest.map(|at| now.saturating_sub(Duration::from_nanos(at))).unwrap_or_default();
        depth.oldest = depth.oldest.max(age);
    }
    Ok(depth)
}

async fn all_of(bus: &Arc<dyn Bus>, stream: &str, filter: &str) -> Result<(u64, Option<u64>), Error> {
    let mut reader = bus.read(stream, filter, Start::Sequence(0)).await?;
    let (mut open, mut oldest) = (0, None);
    while let Some(stored) = reader.stored().await? {
        open += 1;
        oldest.get_or_insert(stored.timestamp);
    }
    Ok((open, oldest))
}

/// What stands before a job in its own queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) jobs: u64,
    /// There are more.
    pub(crate) at_least: bool,
}

/// Jobs of the same queue that were submitted earlier, and have not ended.
pub(crate) async fn ahead(bus: &Arc<dyn Bus>, queued: &QueuedJob) -> Result<Ahead, Error> {
    let queue = Queue::of(&queued.plugin, &queued.job);
    let filter = queue.filter();
    let mut ahead = Ahead::default();
    let Some(stream) = bus.covering(&filter).await? else { return Ok(ahead) };
    let from = match bus.durable(&stream.name, &queue.durable()).await? {
        Some(origin) => match bus.backlog(&origin).await {
            Ok(backlog) => backlog.ack_floor + 1,
            Err(Error::Gone { .. }) => 0,
            Err(error) => return Err(error),
        },
        None => 0,
    };
    let mut reader = bus.read(&stream.name, &filter, Start::Sequence(from)).await?;
    let mut looked = 0;
    while let Some(stored) = reader.stored().await? {
        let Some(id) = stored.message.subject.rsplit('.').next().filter(|id| *id != queued.id) else { break };
        if looked == LOOKED {
            ahead.at_least = true;
            break;
        }
        looked += 1;
        if bus.last(&status::subject(id)).await?.is_none() {
            ahead.jobs += 1;
        }
    }
    Ok(ahead)
}
