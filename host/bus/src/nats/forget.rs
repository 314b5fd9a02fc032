//! Persists floors, and forgets what nobody can need any more: records whose bucket the persisted floor has long passed, what
//! is left of durables that are no more, and messages of inboxes that are acked and a day old. Nothing else is deleted. Every
//! host does all of it, each by its own clock: whoever comes second finds nothing to do.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    NatsBus,
    commit::{
        record::{self, BUCKET},
        store,
    },
    floors::{self, Named, OriginState},
    jsapi::{CallError, code, duration_ns},
    link::{Link, Silence},
    read, reader, streams,
};
use crate::{api::Start, error::Error};

/// Durables of inboxes are called so, and their subjects.
pub(super) const INBOX_DURABLE: &str = "cofferdam-inbox-";
pub(super) const INBOX: &str = "cd.in.";
/// So many of the newest buckets are purged without looking what there is.
const UNSEEN: u64 = 16;

/// For as long as the bus is in use.
pub(super) async fn run(bus: Weak<NatsBus>) {
    let Some(timing) = bus.upgrade().map(|bus| bus.link.timing) else { return };
    let mut memory = Memory::default();
    loop {
        tokio::time::sleep(timing.floors()).await;
        let Some(bus) = bus.upgrade() else { return };
        memory.tick(&bus).await;
    }
}

#[derive(Default)]
struct Memory {
    /// Of each origin in use.
    buckets: HashMap<String, Buckets>,
    /// Since when an origin is known to be no more.
    gone: HashMap<String, (Instant, Named)>,
    swept: Option<Instant>,
}

/// How many buckets of an origin lie wholly below its persisted floor.
#[derive(Default)]
struct Buckets {
    /// And since when, as far as we know. Oldest first.
    passed: VecDeque<(Instant, u64)>,
    purged: u64,
}

impl Buckets {
    /// The persisted floor is this now.
    fn see(&mut self, floor: u64, now: Instant) {
        let count = (floor + 1) / BUCKET;
        if count > self.passed.back().map_or(self.purged, |(_, last)| *last) {
            self.passed.push_back((now, count));
        }
    }

    /// How many may be purged, if that is more than were.
    fn ripe(&self, now: Instant, after: Duration) -> Option<u64> {
        let ripe = self.passed.iter().take_while(|(since, _)| now.saturating_duration_since(*since) >= after);
        ripe.last().map(|(_, count)| *count)
    }

    fn purged(&mut self, count: u64) {
        self.purged = count;
        self.passed.retain(|(_, later)| *later > count);
    }
}

impl Memory {
    async fn tick(&mut self, bus: &Arc<NatsBus>) {
        let timing = bus.link.timing;
        let origins = bus.floors.all();
        self.buckets.retain(|id, _| origins.iter().any(|o| o.named().id == *id));
        for origin in &origins {
            match origin.refresh(&bus.link).await {
                Ok(true) => {}
                Ok(false) => {
                    bus.floors.remove(&origin.named().id);
                    continue;
                }
                // Else it is this one's leader that says nothing: the others' may.
                Err(CallError::Silence(Silence::Unknown(_))) if !bus.link.is_up() => return,
                Err(e) if e.is(code::STREAM_NOT_FOUND) => {
                    if let Err(e) = store::restore(bus).await {
                        tracing::error!(%e, "nothing can commit");
                    }
                    return;
                }
                Err(e) => {
                    tracing::debug!(?e, durable = origin.named().durable, "no ack floor");
                    continue;
                }
            }
            origin.persist(&bus.link).await;
            let buckets = self.buckets.entry(origin.named().id.clone()).or_default();
            // After the answer: it has passed them by now.
            buckets.see(origin.persisted(), Instant::now());
            if let Some(count) = buckets.ripe(Instant::now(), timing.forget()) {
                match purge_buckets(&bus.link, &origin.named().id, buckets.purged, count).await {
                    Ok(()) => buckets.purged(count),
                    Err(e) => tracing::debug!(?e, "records are purged later"),
                }
            }
        }
        self.forget_gone(bus).await;
        if self.swept.is_none_or(|at| at.elapsed() >= timing.sweep()) {
            self.swept = Some(Instant::now());
            bus.lookups.tidy();
            for origin in &origins {
                if let Err(e) = forget_inbox(&bus.link, origin).await {
                    tracing::debug!(?e, "an inbox is purged later");
                }
            }
            if let Err(e) = self.sweep(bus).await {
                tracing::debug!(%e, "looking for durables that are no more later");
            }
        }
    }

    /// Looks whether the durables of all floors are still there, followed by us or not.
    async fn sweep(&mut self, bus: &Arc<NatsBus>) -> Result<(), Error> {
        let mut gone = HashMap::new();
        let mut floors = reader::open(bus.clone(), streams::OURS, floors::FILTER, Start::Sequence(0)).await?;
        while let Some(stored) = floors.stored().await? {
            match Named::decode_from(&stored.message.subject, &stored.message.data) {
                Ok(named) if named.info(&bus.link).await?.is_none() => {
                    let since = self.gone.remove(&named.id).map_or_else(Instant::now, |(since, _)| since);
                    gone.insert(named.id.clone(), (since, named));
                }
                Ok(_) => {}
                // A newer version's.
                Err(e) => tracing::debug!(%e, "left alone"),
            }
        }
        self.gone = gone;
        Ok(())
    }

    /// What nobody can commit to any more: to write a record, it is confirmed that the durable is there.
    async fn forget_gone(&mut self, bus: &NatsBus) {
        let after = bus.link.timing.forget();
        let ripe = self.gone.extract_if(|_, (since, _)| since.elapsed() >= after);
        for (id, (_, named)) in ripe.collect::<Vec<_>>() {
            // Else it is for the next sweep to say again that it is gone.
            if bus.floors.get(&id).is_some() || !matches!(named.info(&bus.link).await, Ok(None)) {
                continue;
            }
            // The floor last: as long as it is there, the rest is found.
            let purged = async {
                purge(&bus.link, &record::filter(&id)).await?;
                purge(&bus.link, &format!("cd.f.{id}")).await
            };
            match purged.await {
                Ok(()) => tracing::info!(named.stream, named.durable, "forgot a durable that is no more"),
                Err(e) => tracing::debug!(?e, named.durable, "forgotten later"),
            }
        }
    }
}

/// Purges all buckets below `below`; those below `from` were.
async fn purge_buckets(link: &Link, origin: &str, from: u64, below: u64) -> Result<(), CallError> {
    for bucket in from.max(below.saturating_sub(UNSEEN))..below {
        purge(link, &record::bucket_filter(origin, bucket)).await?;
    }
    // There may be many more that are empty, and a few that are not: whatever is oldest tells.
    while let Some(oldest) =
        read::next(link, streams::OURS, &record::filter(origin), read::From::Sequence(1)).await?
        && let Some(bucket) = record::bucket_of(&oldest.message.subject)
        && bucket < below
    {
        purge(link, &record::bucket_filter(origin, bucket)).await?;
    }
    Ok(())
}

/// Purges what the inbox's durable has acked, but not what somebody may still ask for (see `commit::lookup`).
async fn forget_inbox(link: &Link, origin: &OriginState) -> Result<(), CallError> {
    let Named { stream, durable, .. } = origin.named();
    if stream != streams::OURS || !durable.starts_with(INBOX_DURABLE) || !origin.filter.starts_with(INBOX) {
        return Ok(());
    }
    let old = link.server_now().saturating_sub(duration_ns(link.timing.inbox));
    let first_kept = read::next(link, streams::OURS, &origin.filter, read::From::Time(old)).await?;
    let acked = origin.floor() + 1;
    let before = first_kept.map_or(acked, |kept| kept.sequence.min(acked));
    let body = json!({ "filter": origin.filter, "seq": before });
    link.call::<Value>(&format!("STREAM.PURGE.{}", streams::OURS), &body).await.map(|_| ())
}

async fn purge(link: &Link, filter: &str) -> Result<(), CallError> {
    let body = json!({ "filter": filter });
    link.call::<Value>(&format!("STREAM.PURGE.{}", streams::OURS), &body).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_ripe_three_leases_after_the_floor_was_seen_past_its_end() {
        let (begin, after) = (Instant::now(), Duration::from_secs(90));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut buckets = Buckets::default();
        buckets.see(BUCKET - 2, at(0));
        assert_eq!(buckets.ripe(at(1000), after), None, "not whole");
        buckets.see(BUCKET - 1, at(10));
        buckets.see(BUCKET + 5, at(20));
        buckets.see(3 * BUCKET, at(30));
        assert_eq!(buckets.ripe(at(99), after), None);
        assert_eq!(buckets.ripe(at(100), after), Some(1));
        assert_eq!(buckets.ripe(at(120), after), Some(3));
        buckets.purged(1);
        assert_eq!(buckets.ripe(at(110), after), None);
        buckets.purged(3);
        buckets.see(3 * BUCKET + 1, at(200));
        assert_eq!(buckets.ripe(at(1000), after), None);
    }
}
