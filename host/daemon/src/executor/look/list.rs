//! The newest jobs that match. A stream is read forwards only, and holds a week: what was submitted lately is looked at first,
//! and more only if that is not enough.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cofferdam_bus::{Bus, Error, Start, Stored};
use cofferdam_sandbox::JobPhase;
use serde::Deserialize;

use super::{
    whole::{Standing, Whole},
    workers::Crew,
};
use crate::executor::{job::QueuedJob, status::RECORDS};

/// Kept in memory for one call.
pub(crate) const MAX_NEWEST: usize = 10_000;
/// How far back is looked; at last, at all there is.
const BACK: [Option<Duration>; 4] = [
    Some(Duration::from_secs(10 * 60)),
    Some(Duration::from_secs(3 * 3600)),
    Some(Duration::from_secs(24 * 3600)),
    None,
];
const JOBS: &str = "cd.j.>";

/// A filter that was checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) phase: Option<JobPhase>,
    pub(crate) plugin: Option<String>,
    pub(crate) model: Option<String>,
}

impl Wanted {
    fn filter(&self) -> String {
        match &self.plugin {
            Some(plugin) => format!("cd.j.{plugin}.>"),
            None => JOBS.to_owned(),
        }
    }

    fn fits(&self, queued: &QueuedJob) -> bool {
        let Some(model) = &self.model else { return true };
        let agents = queued.job.agents.iter().map(|agent| agent.model.as_str());
        agents.chain(queued.job.model.as_deref()).any(|one| one == model)
    }
}

/// The newest that match, newest first, and whether there are more.
pub(crate) async fn newest(
    bus: &Arc<dyn Bus>,
    crew: &Crew,
    wanted: &Wanted,
    count: usize,
) -> Result<(Vec<(Whole, Standing)>, bool), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut found = VecDeque::new();
    for back in BACK {
        let start = match back {
            Some(back) => Start::Time(u64::try_from((now.saturating_sub(back)).as_nanos()).unwrap_or(0)),
            None => Start::Sequence(0),
        };
        // One more, to know whether there is.
        found = since(bus, crew, wanted, count + 1, start).await?;
        if found.len() > count {
            break;
        }
    }
    let more = found.len() > count;
    let mut newest = Vec::new();
    for (queued, submitted) in found.into_iter().rev().take(count) {
        let whole = Whole::of(bus, queued, submitted).await?;
        let standing = whole.standing(&crew.by_job());
        // It may have moved on since it was chosen: what is told is how it stands.
        newest.push((whole, standing));
    }
    Ok((newest, more))
}

async fn since(
    bus: &Arc<dyn Bus>,
    crew: &Crew,
    wanted: &Wanted,
    count: usize,
    start: Start,
) -> Result<VecDeque<(QueuedJob, u64)>, Error> {
    let mut found = VecDeque::new();
    let filter = wanted.filter();
    let Some(stream) = bus.covering(&filter).await? else { return Ok(found) };
    let ended = match wanted.phase {
        // A record is younger than its job.
        Some(_) => Ended::read(bus, &stream.name, start).await?,
        None => Ended::default(),
    };
    let worked = crew.by_job();
    let mut reader = bus.read(&stream.name, &filter, start).await?;
    while let Some(stored) = reader.stored().await? {
        let Some(mut queued) = read(&stored) else { continue };
        if queued.parent.is_some() || !wanted.fits(&queued) {
            continue;
        }
        if let Some(phase) = wanted.phase
            && !match ended.of(&queued.id) {
                Some(ended) => ended == phase,
                // Parts, or none yet.
                None => {
                    Whole::of(bus, queued.clone(), stored.timestamp).await?.standing(&worked).phase == phase
                }
            }
        {
            continue;
        }
        if found.len() == count {
            found.pop_front();
        }
        // Long, and no list shows it.
        queued.job.prompt = String::new();
        found.push_back((queued, stored.timestamp));
    }
    Ok(found)
}

fn read(stored: &Stored) -> Option<QueuedJob> {
    let read = serde_json::from_slice(&stored.message.data);
    read.inspect_err(|error| {
        tracing::debug!(subject = stored.message.subject, "a job can't be read: {error}")
    })
    .ok()
}

/// Jobs that have ended, by a hash of their ids: there may be millions.
#[derive(Default)]
struct Ended(HashMap<u64, JobPhase>);

#[derive(Deserialize)]
struct Phase {
    phase: JobPhase,
}

impl Ended {
    async fn read(bus: &Arc<dyn Bus>, stream: &str, start: Start) -> Result<Self, Error> {
        let mut reader = bus.read(stream, RECORDS, start).await?;
        let mut ended = HashMap::new();
        while let Some(stored) = reader.stored().await? {
            let id = stored.message.subject.rsplit('.').next().unwrap_or_default();
            if let Ok(Phase { phase: phase @ (JobPhase::Done | JobPhase::Failed | JobPhase::Cancelled) }) =
                serde_json::from_slice(&stored.message.data)
            {
                ended.insert(hash(id), phase);
            }
        }
        Ok(Self(ended))
    }

    fn of(&self, id: &str) -> Option<JobPhase> {
        self.0.get(&hash(id)).copied()
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
