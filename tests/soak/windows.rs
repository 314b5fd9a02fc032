//! How far the events were that a kill cut off. Decided afterwards: which run of an event committed is known by then.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    faults::Kill,
    journal::{Call, Journal, by_event},
    mark::{Mark, Slot},
    tap::Heard,
};

/// Kills that cut off at least one event there. On the embedded bus a commit is one transaction, ack included: it has the first
/// window only, and `None` for what is within.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Windows {
    /// It ran, and its effects were nowhere.
    pub(crate) uncommitted: u64,
    /// Its commit point was written, and none of its effects.
    pub(crate) committed_unapplied: Option<u64>,
    /// Some of them.
    pub(crate) half_applied: Option<u64>,
    /// All of them, and it was not acked.
    pub(crate) applied_unacked: Option<u64>,
}

/// In nanoseconds; far longer than an ack wait.
const LATELY: u64 = 60_000_000_000;

/// From the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Window {
    Uncommitted,
    Unapplied,
    Half,
    Unacked,
}

impl Windows {
    /// Those that were never hit.
    pub(crate) fn missed(&self) -> Vec<&'static str> {
        let all = [
            ("uncommitted", Some(self.uncommitted)),
            ("committed_unapplied", self.committed_unapplied),
            ("half_applied", self.half_applied),
            ("applied_unacked", self.applied_unacked),
        ];
        all.into_iter().filter(|(_, hit)| *hit == Some(0)).map(|(name, _)| name).collect()
    }

    /// Without ears: an event that a killed host had begun and that ran again on a later one was cut off before its commit.
    /// `runs`: the run of each event whose effects are there, but for those of which an attempt failed.
    pub(crate) fn by_calls(kills: &[Kill], journal: &Journal, runs: &BTreeMap<u64, u64>) -> Windows {
        let mut windows = Windows::default();
        let by_event = by_event(&journal.runs);
        for kill in kills {
            let cut_off = |calls: &Vec<&Call>| {
                let begun = calls.iter().rposition(|call| Some(&call.who) == kill.who.as_ref());
                begun.is_some_and(|at| at + 1 < calls.len())
            };
            let mut events = lately(kill, journal).into_iter().filter(|event| runs.contains_key(event));
            windows.uncommitted += u64::from(events.any(|event| cut_off(&by_event[&event])));
        }
        windows
    }

    /// The same where NATS was listened to.
    pub(crate) fn by_ear(
        kills: &[Kill],
        journal: &Journal,
        heard: &Heard,
        runs: &BTreeMap<u64, u64>,
    ) -> Windows {
        let mut windows = Windows {
            uncommitted: 0,
            committed_unapplied: Some(0),
            half_applied: Some(0),
            applied_unacked: Some(0),
        };
        let by_event = by_event(&journal.runs);
        for kill in kills {
            let mut hit: Vec<Window> = lately(kill, journal)
                .into_iter()
                .filter_map(|event| window(kill, event, &by_event[&event], heard, runs.get(&event)))
                .collect();
            hit.sort_unstable();
            hit.dedup();
            for window in hit {
                match window {
                    Window::Uncommitted => windows.uncommitted += 1,
                    Window::Unapplied => *windows.committed_unapplied.get_or_insert(0) += 1,
                    Window::Half => *windows.half_applied.get_or_insert(0) += 1,
                    Window::Unacked => *windows.applied_unacked.get_or_insert(0) += 1,
                }
            }
        }
        windows
    }
}

/// Events that began to run not long before the kill: no other can have been under way.
fn lately(kill: &Kill, journal: &Journal) -> BTreeSet<u64> {
    let calls = journal.runs.iter().rev().skip_while(|call| call.at > kill.at);
    calls.take_while(|call| call.at + LATELY > kill.at).map(|call| call.event).collect()
}

/// Where the kill cut the event off, if it did and if that can be told.
fn window(kill: &Kill, event: u64, calls: &[&Call], heard: &Heard, run: Option<&u64>) -> Option<Window> {
    let begun = calls.iter().rev().find(|call| call.at <= kill.at)?;
    if kill.who.as_ref().is_some_and(|who| *who != begun.who) {
        return None;
    }
    // What happened while nothing was heard can't be told, nor what was under way then.
    let deaf = heard.blind.iter().any(|(_, until)| begun.at <= *until && *until < kill.at);
    let by_then = |at: Option<&u64>| at.is_some_and(|at| *at <= kill.at);
    if deaf || by_then(heard.acks.get(&event)) {
        return None;
    }
    let run = *run?;
    if !by_then(heard.commits.get(&(event, run))) {
        // It came to its end after the kill: on a later run, or, where the server was killed, by itself.
        let went_on = run > begun.count || heard.commits.contains_key(&(event, run));
        return went_on.then_some(Window::Uncommitted);
    }
    let slots = [Slot::First, Slot::Job, Slot::Second];
    let sent = slots.iter().filter(|slot| by_then(heard.effects.get(&Mark { event, run, slot: **slot })));
    Some(match sent.count() {
        0 => Window::Unapplied,
        1 | 2 => Window::Half,
        _ => Window::Unacked,
    })
}
