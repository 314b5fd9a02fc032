//! Commit by the message id of the one message that an event may publish: once within its stream's duplicate window.

use super::{apply, store};
use crate::{
    api::{Change, Committed, Delivery},
    error::CommitError,
    nats::NatsBus,
};

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    change: Change,
) -> Result<Committed, CommitError> {
    if let [effect] = change.effects.as_slice() {
        let event = delivery.id();
        let now = bus.link.server_now();
        let stored = apply::store(bus, &event, &format!("{event}.0"), effect, now).await;
        let first = stored.map_err(CommitError::Unfit)?;
        if !first {
            store::ack(delivery).await;
            return Err(CommitError::Settled);
        }
    }
    store::ack(delivery).await;
    Ok(Committed::default())
}
