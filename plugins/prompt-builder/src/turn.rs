//! Turns: how many derivations one requester may open within a while. What is over the limit waits. A requester is an
//! aggregate of its own, which a derivation asks by an event and is answered by another.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Record, Timestamp},
    info,
    publish::EmitError,
    state, warn,
};
use serde::{Deserialize, Serialize};

use crate::{
    STRATEGY,
    own::{Due, Queued},
    settings::Settings,
};

const KEY: &str = "turns";
/// Whoever does not say its name shares this one with all others who don't.
const NAMELESS: &str = "unknown";
/// It names a cell.
const NAME_CHARS: usize = 200;

/// When a requester's last turns were, or will be, oldest first: as many as the limit allows.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Turns {
    nanos: Vec<u64>,
}

impl Turns {
    /// Takes the next turn: now, or as soon as not more than `limit` fall into any `window`.
    fn next(&mut self, now: u64, limit: usize, window: u64) -> u64 {
        let begins = match self.nanos.len().checked_sub(limit) {
            Some(first) => self.nanos[first].saturating_add(window),
            None => now,
        };
        let turn = begins.max(now).max(self.nanos.last().copied().unwrap_or_default());
        self.nanos.push(turn);
        let surplus = self.nanos.len().saturating_sub(limit);
        self.nanos.drain(..surplus);
        turn
    }
}

/// Whether the turn of a derivation that waits for one is not to be expected any more: its question or the answer has become a
/// dead letter, or a grant is gone. Nobody can tell that from a long queue, so whoever asks again after two windows is served.
pub(crate) fn is_lost(record: &Record, message: &Incoming, settings: &Settings) -> bool {
    let patience = settings.rate_window_seconds.saturating_mul(2);
    record.attempt == 0 && record.opened_at.plus_seconds(patience) < message.arrival()
}

/// A derivation that is to begin asks for its turn. It is handed back if it need not wait, because the operator does not allow
/// it to ask, or to be answered.
pub(crate) fn ask(message: &Incoming, mut record: Record) -> Result<Option<Record>, Failure> {
    let name: String =
        record.requested_by.as_deref().unwrap_or(NAMELESS).trim().chars().take(NAME_CHARS).collect();
    let requester = if name.is_empty() { NAMELESS.into() } else { name };
    let queued = Queued { stage: record.stage(1), requester };
    let cause = message.cause().continuing(&record.cause);
    // The answer is given elsewhere, and whether it may be, only trying tells.
    let due = Due { stage: record.stage(1) };
    let (at, operation) = (Timestamp::now().plus_seconds(60), record.operation("may-wait"));
    if !STRATEGY.set(&mut record, &cause, at, &due, &operation)? {
        warn!("it begins without its turn, of which nothing could tell it"; plan_id = record.plan_id);
        return Ok(Some(record));
    }
    STRATEGY.disarm(&mut record)?;
    match STRATEGY.writer.emit(&cause, &queued, &record.operation("queued")) {
        Ok(_) => {
            record.save()?;
            Ok(None)
        }
        Err(error @ EmitError::Denied(_)) => {
            warn!("it begins without its turn: {error}"; plan_id = record.plan_id);
            Ok(Some(record))
        }
        Err(error) => Err(error.into()),
    }
}

/// In the requester's cell: tells the derivation when its turn is.
pub(crate) fn handle(message: &Incoming, queued: &Queued) -> Result<(), Failure> {
    message.keyed_by(&queued.requester)?;
    let settings = Settings::load()?;
    let due = Due { stage: queued.stage.clone() };
    let (plan_id, requester) = (&due.stage.plan_id, &queued.requester);
    let (limit, seconds) = (settings.rate_limit, settings.rate_window_seconds);
    let now = Timestamp::now();
    // The operator may have taken the limit away meanwhile.
    let mut turn = now.nanos();
    if limit > 0 {
        let mut turns: Turns = state::load(KEY)?.unwrap_or_default();
        turn = turns.next(turn, limit, seconds.saturating_mul(1_000_000_000));
        state::save(KEY, &turns)?;
    }
    if turn <= now.nanos() {
        info!("its turn is now"; plan_id = plan_id, requester = requester);
        STRATEGY.writer.emit(&message.cause(), &due, &due.operation())?;
        return Ok(());
    }
    let at = Timestamp::from_nanos(turn);
    warn!("more than {limit} requests in {seconds} s: it waits"; plan_id = plan_id, requester = requester, until = at);
    STRATEGY.writer.schedule(at, &message.cause(), &due, &due.operation())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_holds_more_turns_than_the_limit() {
        let mut turns = Turns::default();
        let asked = [0, 1, 2, 3, 4, 50, 105, 106, 300, 300, 300, 300];
        let given: Vec<u64> = asked.into_iter().map(|now| turns.next(now, 2, 100)).collect();
        assert_eq!(given, [0, 1, 100, 101, 200, 201, 300, 301, 400, 401, 500, 501]);
        assert_eq!(turns.nanos.len(), 2);
        assert_eq!(turns.next(1_000, 2, 100), 1_000, "it was quiet meanwhile");
    }

    #[test]
    fn a_limit_that_was_changed_counts_from_now_on() {
        let mut turns = Turns { nanos: vec![10, 20, 30] };
        assert_eq!(turns.next(31, 1, 100), 130);
        assert_eq!(turns.next(32, 5, 100), 130, "not before those that wait");
    }
}
