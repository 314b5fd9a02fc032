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
        let delivered = delivery.id();
        let commit =
            apply::Commit { event: change.cause(&delivered), at: bus.link.server_now(), acked: false };
        let stored = apply::store(bus, commit, &change.id(&delivered, 0), effect).await;
        let first = stored.map_err(|refusal| CommitError::Unfit(refusal.to_string()))?;
        if !first {
            store::ack(delivery).await;
            return Err(CommitError::Settled);
        }
    }
    store::ack(delivery).await;
    Ok(Committed::default())
}
