//! Whether an event of any durable was acked, so that what it has committed needs no look at its targets: acked implies
//! applied. An ack floor alone does not tell: it also passes what its stream discarded, perhaps while that was worked on.

use super::{lookup::CLOCKS, store};
use crate::nats::{
    NatsBus,
    floors::{Acked, Named},
    forget, read, streams,
};

/// Of an event that committed then. Waits for our own stream alone: what another one does not tell is not known.
pub(super) async fn ask(bus: &NatsBus, origin: &str, sequence: u64, committed: u64) -> Acked {
    // The floor first: what is still there after the floor has passed it was not discarded.
    let followed = bus.floors.get(origin);
    let named = match &followed {
        Some(state) => {
            if state.floor() < sequence {
                state.freshen(&bus.link).await;
            }
            (state.floor() >= sequence).then(|| state.named().clone()).ok_or(Acked::No)
        }
        None => stored(bus, origin, sequence, committed).await,
    };
    let named = match named {
        Ok(named) => named,
        Err(acked) => return acked,
    };
    // These go only when they are acked.
    if named.stream == streams::OURS && named.durable.starts_with(forget::INBOX_DURABLE) {
        return Acked::Surely;
    }
    match read::at(&bus.link, &named.stream, sequence).await {
        // Stored later, it is another stream of that name.
        Ok(Some(event)) if event.timestamp <= committed.saturating_add(CLOCKS) => Acked::Surely,
        Ok(_) => Acked::Perhaps,
        Err(e) => {
            tracing::debug!(
                ?e,
                origin,
                sequence,
                stream = named.stream,
                "not known whether the event is there"
            );
            Acked::Perhaps
        }
    }
}

/// By what is persisted, for a durable that this host does not follow. Gives whose it is, if its floor has passed the event.
async fn stored(bus: &NatsBus, origin: &str, sequence: u64, committed: u64) -> Result<Named, Acked> {
    let row = store::read(bus, &Named::subject_of(origin)).await;
    let row = match row.and_then(|row| row.map(|row| Named::with_floor(&row)).transpose()) {
        Ok(row) => row,
        Err(e) => {
            tracing::debug!(%e, origin, "no persisted floor");
            return Err(Acked::No);
        }
    };
    let Some((named, floor)) = row else {
        // A durable has one soon after a host begins to follow it, and until it has been deleted: by a person, who has
        // decided about its events. Whether this one was acked, nobody can tell any more.
        let age = bus.link.server_now().saturating_sub(committed);
        let old = u128::from(age) > bus.link.timing.sweep().as_nanos();
        return Err(if old { Acked::Perhaps } else { Acked::No });
    };
    if floor >= sequence {
        return Ok(named);
    }
    // It is persisted every now and then, by who follows it.
    match named.info(&bus.link).await {
        Ok(Some(answer)) if answer.ack_floor.stream_seq >= sequence => Ok(named),
        Ok(_) => Err(Acked::No),
        Err(e) => {
            tracing::debug!(?e, origin, durable = named.durable, "no ack floor");
            Err(Acked::No)
        }
    }
}
