//! Cells: reading them, and the commit by the cell of an order key: state, settled events and effects in one message,
//! compared and set. Knows nothing of records.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{
    acked, apply,
    apply::Order,
    batch::Batch,
    format::{Cell, Pending},
    run_mark, store,
};
use crate::{
    api::{Change, Committed, Delivery, Opened, OtherCell, Point, Snapshot, Stored},
    error::{CommitError, Error},
    names,
    nats::{NatsBus, floors::Acked, link::Backoff},
};

/// A cell remembers no more events of one origin one by one; it waits for the ack floor instead.
const MAX_REMEMBERED: usize = 4096;

/// Where a cell is stored.
pub(super) fn subject_of(space: &str, cell: &str) -> Result<String, Error> {
    names::check_cell(space, cell)?;
    let hash: String = Sha256::digest(cell).iter().take(16).map(|b| format!("{b:02x}")).collect();
    Ok(format!("cd.s.{space}.{hash}"))
}

/// The bus's notes of a cell that was read.
pub(super) struct Notes {
    pub(super) subject: String,
    pub(super) cell: Cell,
}

/// Reads a cell, with its message if there is one.
async fn read(bus: &NatsBus, space: &str, name: &str) -> Result<(Notes, Option<Stored>), Error> {
    let subject = subject_of(space, name)?;
    let Some(stored) = store::read(bus, &subject).await? else {
        let cell = Cell { name: name.to_owned(), ..Cell::default() };
        return Ok((Notes { subject, cell }, None));
    };
    let cell = Cell::decode_from(&subject, name, &stored.message.data)?;
    Ok((Notes { subject, cell }, Some(stored)))
}

/// Reads a cell, with its revision, and applies what earlier events left there: they committed first.
async fn load(bus: &NatsBus, space: &str, name: &str) -> Result<(Notes, u64), Error> {
    let (notes, stored) = read(bus, space, name).await?;
    let Some(stored) = stored else { return Ok((notes, 0)) };
    finish(bus, &notes.subject, &notes.cell, &stored).await;
    Ok((notes, stored.sequence))
}

/// A cell that is not the event's own.
pub(super) async fn other(bus: &NatsBus, space: &str, name: &str) -> Result<OtherCell, Error> {
    let (notes, revision) = load(bus, space, name).await?;
    Ok(outside(space, name, notes, revision))
}

/// The same, as it is.
pub(super) async fn peek(bus: &NatsBus, space: &str, name: &str) -> Result<OtherCell, Error> {
    let (notes, stored) = read(bus, space, name).await?;
    Ok(outside(space, name, notes, stored.map_or(0, |stored| stored.sequence)))
}

fn outside(space: &str, name: &str, notes: Notes, revision: u64) -> OtherCell {
    OtherCell {
        space: space.to_owned(),
        cell: name.to_owned(),
        state: notes.cell.state(),
        writes: Vec::new(),
        revision,
        notes: Some(Arc::new(notes)),
    }
}

pub(super) async fn open(
    bus: &NatsBus,
    delivery: &Delivery,
    space: &str,
    name: &str,
) -> Result<Opened, Error> {
    let (notes, revision) = load(bus, space, name).await?;
    if notes.cell.is_settled(&delivery.origin.id, delivery.stored.sequence) {
        store::ack(delivery).await;
        return Ok(Opened::Settled);
    }
    let state = notes.cell.state();
    let point = Point::Cell { space: space.to_owned(), cell: name.to_owned() };
    Ok(Opened::Fresh(Snapshot { point, state, revision, notes: Some(Arc::new(notes)) }))
}

/// Applies what the cell holds, unless this process has done so, or is about to.
async fn finish(bus: &NatsBus, subject: &str, cell: &Cell, stored: &Stored) -> Vec<(String, Committed)> {
    if cell.pending.is_empty() {
        return Vec::new();
    }
    let before = bus.applied.noted(subject);
    if before == Some(stored.sequence) {
        return Vec::new();
    }
    let _turn = bus.applied.turn(subject).await;
    // Whoever had the turn applied this, or wrote over it, which is done only to what was applied.
    if bus.applied.noted(subject).is_some_and(|now| before != Some(now) && now >= stored.sequence) {
        return Vec::new();
    }
    let mut done = Vec::new();
    for pending in &cell.pending {
        let event = format!("{}.{}", pending.origin, pending.sequence);
        // It stays here, after apply and ack too, until the key is written again, perhaps for months. By then what it stored
        // may have expired, or been deleted by whoever has dealt with it.
        let acked = acked::ask(bus, &pending.origin, pending.sequence, stored.timestamp).await;
        let refused = match acked {
            Acked::Surely => Vec::new(),
            Acked::Perhaps | Acked::No => {
                let acked = acked == Acked::Perhaps;
                let commit = apply::Commit { event: &event, at: stored.timestamp, acked };
                apply::apply(bus, commit, &pending.change(), Vec::new(), Order::Strict).await
            }
        };
        done.push((event, Committed { refused }));
    }
    bus.applied.note(subject, stored.sequence);
    done
}

pub(super) async fn commit(
    bus: &NatsBus,
    delivery: &Delivery,
    base: &Snapshot,
    change: Change,
    ready: Vec<apply::Ready>,
) -> Result<Committed, CommitError> {
    let notes = base.notes.as_ref().and_then(|n| n.downcast_ref::<Notes>());
    let notes = notes.ok_or_else(|| CommitError::Unfit("the snapshot is not of this bus".into()))?;
    let (origin, sequence) = (&delivery.origin.id, delivery.stored.sequence);
    let (event, mark) = (delivery.id(), run_mark());

    let mut cell = notes.cell.clone();
    make_room(bus, &mut cell, delivery).await?;
    cell.write(&change.writes);
    cell.settle(origin, sequence);
    // `open` has applied all that was pending in the snapshot.
    cell.pending = Pending::new(origin, sequence, &change).into_iter().collect();
    cell.run = mark;
    let write = store::Write::new(bus, event, &notes.subject, base.revision, cell.encoded())?;
    let write = Batch::new(bus, event, write, &change.others)?;

    loop {
        let turn = bus.applied.turn(&notes.subject).await;
        let before = bus.link.server_now();
        if let store::Attempt::Done(revision) = write.attempt(bus).await? {
            let commit = apply::Commit { event, at: before, acked: false };
            let refused = apply::apply(bus, commit, &change, ready, Order::Strict).await;
            bus.applied.note(&notes.subject, revision);
            store::ack(delivery).await;
            return Ok(Committed { refused });
        }
        drop(turn);
        let Some(stored) = store::read(bus, &notes.subject).await? else {
            if base.revision != 0 || write.is_outdated(bus).await? {
                return Err(CommitError::Conflict);
            }
            continue;
        };
        let now = Cell::decode_from(&notes.subject, &cell.name, &stored.message.data)?;
        if now.is_settled(origin, sequence) {
            let mut done = finish(bus, &notes.subject, &now, &stored).await;
            store::ack(delivery).await;
            if now.run != mark {
                return Err(CommitError::Settled);
            }
            let own = done.iter().position(|(of, _)| *of == event).map(|at| done.swap_remove(at).1);
            return Ok(own.unwrap_or_default());
        }
        if stored.sequence != base.revision || write.is_outdated(bus).await? {
            return Err(CommitError::Conflict);
        }
        // As it was: the same write again.
    }
}

/// Drops what the ack floors cover; waits while there is too much to remember.
async fn make_room(bus: &NatsBus, cell: &mut Cell, delivery: &Delivery) -> Result<(), Error> {
    let origin = delivery.origin.id.as_str();
    let mut backoff = Backoff::new();
    loop {
        let floors: Vec<(String, u64)> =
            cell.origins().filter_map(|o| Some((o.to_owned(), bus.floors.get(o)?.floor()))).collect();
        for (origin, floor) in floors {
            cell.raise(&origin, floor.min(below(&origin, delivery)));
        }
        if cell.remembered(origin) < MAX_REMEMBERED {
            return Ok(());
        }
        let Some(state) = bus.floors.get(origin) else {
            return Err(Error::Gone { what: "durable", name: delivery.origin.durable.clone() });
        };
        match state.refresh(&bus.link).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::Gone { what: "durable", name: delivery.origin.durable.clone() });
            }
            Err(e) => tracing::debug!(?e, "no ack floor"),
        }
        backoff.wait().await;
    }
}

/// The event at hand is not settled here, whatever its durable's floor says (somebody else may have acked it).
fn below(origin: &str, delivery: &Delivery) -> u64 {
    if origin == delivery.origin.id { delivery.stored.sequence.saturating_sub(1) } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_cell_becomes_one_token() {
        let subject = subject_of("derivation", "plan/7 – ü").unwrap();
        let hash = subject.strip_prefix("cd.s.derivation.").unwrap();
        assert!(hash.len() == 32 && crate::subject::is_plain_token(hash));
        assert!(subject_of("a.b", "a").is_err());
    }
}
