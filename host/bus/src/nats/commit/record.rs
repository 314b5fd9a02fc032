//! Commit by a record of the event's own, created once. Knows nothing of cells.
//!
//! A record is forgotten once it is long known that its event was acked (see `forget`). Whoever does not know whether that
//! may have happened finds out first: where a record was forgotten, another could be created.

use super::{apply, apply::Order, batch::Batch, format::Record, run_mark, store};
use crate::{
    api::{Change, Committed, Delivery, Opened, Point, Refused, Snapshot},
    error::{CommitError, Error},
    nats::{
        NatsBus,
        floors::{Asked, Standing},
    },
};

/// Records of so many events in a row share a token, so that they can be purged together.
pub(in crate::nats) const BUCKET: u64 = 4096;

/// Of all records of a bucket.
pub(in crate::nats) fn bucket_filter(origin: &str, bucket: u64) -> String {
    format!("{}.{bucket}.>", filter(origin).trim_end_matches(".>"))
}

/// Of all records of an origin.
pub(in crate::nats) fn filter(origin: &str) -> String {
    format!("cd.c.{origin}.>")
}

/// In which bucket a record is.
pub(in crate::nats) fn bucket_of(subject: &str) -> Option<u64> {
    subject.split('.').nth(3)?.parse().ok()
}

fn subject(delivery: &Delivery) -> String {
    let (origin, seq) = (&delivery.origin.id, delivery.stored.sequence);
    format!("cd.c.{origin}.{}.{seq}", seq / BUCKET)
}

/// The last event of the same bucket.
fn end(delivery: &Delivery) -> u64 {
    delivery.stored.sequence / BUCKET * BUCKET + BUCKET - 1
}

/// Whether the record, had there been one, is still there: as long as the floor has not passed the end of its bucket.
async fn standing(bus: &NatsBus, delivery: &Delivery) -> Result<Standing, Error> {
    bus.floors.of(&delivery.origin).standing(&bus.link, end(delivery)).await
}

/// Looks only if this may be another run's remains: the write tells in any case, a look saves a run.
pub(super) async fn open(bus: &NatsBus, delivery: &Delivery) -> Result<Opened, Error> {
    // A killed server that has forgotten the ack counts from 1.
    let acked = delivery.stored.sequence <= bus.floors.of(&delivery.origin).floor();
    if (acked || delivery.count > 1) && finished(bus, delivery).await? {
        return Ok(Opened::Settled);
    }
    if acked && standing(bus, delivery).await? == Standing::Passed {
        store::ack(delivery).await;
        return Ok(Opened::Settled);
    }
    // Below the floor and without a record: its stream discarded it while it waited here. It can still run.
    Ok(Opened::Fresh(Snapshot { point: Point::Record, state: Default::default(), revision: 0, notes: None }))
}

/// Whether the event had committed; then it is applied and acked now.
async fn finished(bus: &NatsBus, delivery: &Delivery) -> Result<bool, Error> {
    Ok(Box::pin(finish(bus, delivery, None)).await?.is_some())
}

/// If the event has committed: applies what is stored, acks. Tells whether the run `mark` had written it.
async fn finish(
    bus: &NatsBus,
    delivery: &Delivery,
    mark: Option<u64>,
) -> Result<Option<(bool, Committed)>, Error> {
    let subject = subject(delivery);
    let Some(stored) = store::read(bus, &subject).await? else { return Ok(None) };
    let record = Record::decode_from(&subject, &stored.message.data)?;
    // A write that was held up for very long, on a connection that was down, may have come after the first record was
    // forgotten: then it has been applied already.
    let refused = match standing(bus, delivery).await? {
        Standing::Kept => apply(bus, delivery.id(), &record.change(), Vec::new(), stored.timestamp).await,
        Standing::Passed => Vec::new(),
    };
    store::ack(delivery).await;
    Ok(Some((mark == Some(record.run), Committed { refused })))
}

async fn apply(
    bus: &NatsBus,
    event: &str,
    change: &Change,
    ready: Vec<apply::Ready>,
    committed: u64,
) -> Vec<Refused> {
    let commit = apply::Commit { event, at: committed, acked: false };
    apply::apply(bus, commit, change, ready, Order::BySubject).await
}

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    change: Change,
    ready: Vec<apply::Ready>,
) -> Result<Committed, CommitError> {
    let event = delivery.id();
    let mark = run_mark();
    let data = prost::Message::encode_to_vec(&Record::new(&change, mark)).into();
    let subject = subject(delivery);
    let write = store::Write::new(bus, event, &subject, 0, data)?;
    let write = Batch::new(bus, event, write, &change.others)?;
    loop {
        // Before each attempt: this host may have rested since the run, or since the attempt before.
        if standing(bus, delivery).await? == Standing::Passed {
            store::ack(delivery).await;
            return Err(CommitError::Settled);
        }
        // The turn may take long. Nobody waits for a floor while having it: the batches of other durables need it, too.
        let turn = write.turn(bus).await;
        let (began, before) = (Asked::now(), bus.link.server_now());
        if bus.floors.of(&delivery.origin).standing_now(&bus.link, end(delivery)) != Some(Standing::Kept) {
            continue;
        }
        let attempt = write.attempt_now(bus).await?;
        drop(turn);
        match attempt {
            store::Attempt::Done(_) if began.is_within(bus.link.timing.lease) => {
                let refused = apply(bus, event, &change, ready, before).await;
                store::ack(delivery).await;
                return Ok(Committed { refused });
            }
            // Or stored by a host that rested after its look at the floor: an earlier record may have been forgotten
            // before this one came, so the floor is asked for again.
            store::Attempt::Done(_) | store::Attempt::Refused | store::Attempt::Unknown => {
                match Box::pin(finish(bus, delivery, Some(mark))).await? {
                    Some((true, committed)) => return Ok(committed),
                    Some((false, _)) => return Err(CommitError::Settled),
                    None if write.is_outdated(bus).await? => return Err(CommitError::Conflict),
                    // Not there: the same write again.
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_its_bucket() {
        assert_eq!(bucket_of("cd.c.abc.7.28673"), Some(7));
        assert_eq!(bucket_filter("abc", 7), "cd.c.abc.7.>");
        assert_eq!(bucket_of("cd.c.abc"), None);
    }
}
