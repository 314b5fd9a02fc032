//! The only place where effects become visible: what the run asked for, or the dead letter in its place, goes through
//! the event's commit point.

use std::sync::Arc;

use cofferdam_bus::{Change, CommitError, Delivery, Opened, Snapshot, Write};

use super::{
    Dispatch, dead_letter,
    decode::Decoded,
    outcome::{Failed, Fault, Outcome},
};
use crate::{capabilities::Residue, plugins::Plugin};

pub(super) enum Ending {
    /// Committed (or found committed) and acked.
    Over(Outcome),
    /// What it wants can't be stored: a failure of this run.
    Failed(Outcome),
    /// Run again on fresh state.
    Conflict,
}

/// Commits a run: its effects if it is done, its dead letter if it failed for good.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a part of the one event; a struct would only rename them"
)]
pub(super) async fn commit(
    dispatch: &Dispatch,
    plugin: &Arc<Plugin>,
    delivery: &Delivery,
    decoded: &Decoded,
    snapshot: Snapshot,
    attempt: u32,
    outcome: Outcome,
    residue: Residue,
) -> Ending {
    let change = match &outcome {
        Outcome::Done => residue.change,
        failed => dead_letter::change(plugin, delivery, decoded, failed, attempt),
    };
    let counted = Counted::of(&change);
    match dispatch.services.bus.commit(delivery, snapshot, change).await {
        Ok(committed) => {
            for refused in &committed.refused {
                tracing::error!(
                    plugin = plugin.name,
                    event = decoded.event.id,
                    subject = refused.subject,
                    reason = refused.reason,
                    fault = Fault::Operator.name(),
                    "an effect was refused by its stream; its dead letter is stored in its place"
                );
            }
            for sample in &residue.samples {
                dispatch.services.metrics.add(sample);
            }
            counted.add(dispatch, plugin, &outcome);
            Ending::Over(outcome)
        }
        Err(CommitError::Conflict) => Ending::Conflict,
        Err(CommitError::Settled) => Ending::Over(Outcome::Duplicate),
        Err(CommitError::Unfit(reason)) => {
            Ending::Failed(Outcome::failure(Failed::Unfit, Fault::Operator, reason))
        }
        Err(CommitError::Bus(error)) => Ending::Over(Outcome::Bus(error.to_string())),
    }
}

/// Commits the dead letter of an event that is not run, or whose effects can't be stored.
pub(super) async fn dead_letter(
    dispatch: &Dispatch,
    plugin: &Arc<Plugin>,
    delivery: &Delivery,
    decoded: &Decoded,
    attempt: u32,
    failure: Outcome,
) -> Outcome {
    loop {
        let snapshot = match dispatch.services.bus.open(delivery, &decoded.point).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => return Outcome::Duplicate,
            Err(error) => return Outcome::Bus(error.to_string()),
        };
        let residue = Residue::default();
        match commit(dispatch, plugin, delivery, decoded, snapshot, attempt, failure.clone(), residue).await {
            Ending::Over(outcome) => return outcome,
            Ending::Conflict => {}
            Ending::Failed(unfit) => {
                return Outcome::Bus(format!(
                    "the dead letter can't be stored ({}); it was to say: {}",
                    unfit.reason().unwrap_or_default(),
                    failure.reason().unwrap_or_default()
                ));
            }
        }
    }
}

/// Effects by kind, for the metric.
struct Counted {
    publishes: u64,
    jobs: u64,
    writes: u64,
}

impl Counted {
    fn of(change: &Change) -> Self {
        let jobs = change.effects.iter().filter(|m| m.subject.starts_with("cd.j.")).count() as u64;
        let writes =
            change.writes.iter().filter(|w| matches!(w, Write::Put { .. } | Write::Delete { .. })).count();
        Self { publishes: change.effects.len() as u64 - jobs, jobs, writes: writes as u64 }
    }

    fn add(&self, dispatch: &Dispatch, plugin: &Plugin, outcome: &Outcome) {
        let metrics = &dispatch.services.metrics;
        if *outcome != Outcome::Done {
            metrics.dead_letters.with_label_values(&[plugin.name.as_str()]).inc();
            return;
        }
        for (kind, count) in [("publish", self.publishes), ("job", self.jobs), ("state", self.writes)] {
            if count > 0 {
                metrics.effects.with_label_values(&[plugin.name.as_str(), kind]).inc_by(count);
            }
        }
    }
}
