//! Commit by the message id of the one message that an event may publish: once within its stream's duplicate window.

use super::{apply, store};
use crate::{
    api::{Change, Committed, Delivery, Opened, Point, Snapshot},
    error::{CommitError, Error},
    nats::NatsBus,
};

/// Nothing but the target's memory of ids tells of an earlier run, and the ack floor: what lies there was acked, even if a
/// killed server has forgotten it.
pub(super) async fn open(bus: &NatsBus, delivery: &Delivery) -> Result<Opened, Error> {
    if delivery.stored.sequence <= bus.floors.of(&delivery.origin).floor() {
        store::ack(delivery).await;
        return Ok(Opened::Settled);
    }
    Ok(Opened::Fresh(Snapshot { point: Point::Publish, state: Default::default(), revision: 0, notes: None }))
}

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    change: Change,
    ready: Vec<apply::Ready>,
) -> Result<Committed, CommitError> {
    if let Some((effect, ready)) = change.effects.iter().zip(ready).next() {
        let delivered = delivery.id();
        let commit =
            apply::Commit { event: change.cause(delivered), at: bus.link.server_now(), acked: false };
        let stored = apply::put(bus, commit, &change.id(delivered, 0), effect, ready).await;
        let first = stored.map_err(|refusal| CommitError::Unfit(refusal.to_string()))?;
        if !first {
            store::ack(delivery).await;
            return Err(CommitError::Settled);
        }
    }
    store::ack(delivery).await;
    Ok(Committed::default())
}
