//! Commit by a record of the event's own, created once. Knows nothing of cells.

use super::{apply, apply::Order, format::Record, run_mark, store};
use crate::{
    api::{Change, Committed, Delivery, Opened, Point, Refused, Snapshot},
    error::{CommitError, Error},
    nats::NatsBus,
};

/// Records of so many events in a row share a token, so that they can be purged together.
const BUCKET: u64 = 4096;

fn subject(delivery: &Delivery) -> String {
    let (origin, seq) = (&delivery.origin.id, delivery.stored.sequence);
    format!("cd.c.{origin}.{}.{seq}", seq / BUCKET)
}

/// Looks only if this may be another run's remains: the write tells in any case, a look saves a run.
pub(super) async fn open(bus: &NatsBus, delivery: &Delivery) -> Result<Opened, Error> {
    if delivery.count > 1 && finished(bus, delivery).await? {
        return Ok(Opened::Settled);
    }
    Ok(Opened::Fresh(Snapshot { point: Point::Record, state: Default::default(), revision: 0, notes: None }))
}

/// Whether the event had committed; then it is applied and acked now.
pub(super) async fn finished(bus: &NatsBus, delivery: &Delivery) -> Result<bool, Error> {
    Ok(finish(bus, delivery, None).await?.is_some())
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
    let refused = apply(bus, &delivery.id(), &record.change(), stored.timestamp).await;
    store::ack(delivery).await;
    Ok(Some((mark == Some(record.run), Committed { refused })))
}

async fn apply(bus: &NatsBus, event: &str, change: &Change, committed: u64) -> Vec<Refused> {
    let commit = apply::Commit { event, at: committed, acked: false };
    apply::apply(bus, commit, change, Order::BySubject).await
}

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    change: Change,
) -> Result<Committed, CommitError> {
    let event = delivery.id();
    let mark = run_mark();
    let data = prost::Message::encode_to_vec(&Record::new(&change, mark)).into();
    let subject = subject(delivery);
    let write = store::Write::new(bus, &event, &subject, 0, data)?;
    loop {
        let before = bus.link.server_now();
        match write.attempt(bus).await? {
            store::Attempt::Done(_) => {
                let refused = apply(bus, &event, &change, before).await;
                store::ack(delivery).await;
                return Ok(Committed { refused });
            }
            store::Attempt::Refused | store::Attempt::Unknown => {
                match finish(bus, delivery, Some(mark)).await? {
                    Some((true, committed)) => return Ok(committed),
                    Some((false, _)) => return Err(CommitError::Settled),
                    // Not there: the same write again.
                    None => {}
                }
            }
        }
    }
}
