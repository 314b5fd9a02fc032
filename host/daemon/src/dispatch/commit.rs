//! The only place where effects become visible: what the run asked for, or in its place another attempt or the dead
//! letter, goes through the event's commit point. The answer to a call is the last of its effects, or the only one.

use bytes::Bytes;
use cofferdam_bus::{Change, CommitError, Message, Opened, Snapshot};
use cofferdam_sandbox::Reply;

use super::{
    Work, again,
    dead_letter::{self, Size},
    outcome::{Failed, Outcome, Then},
};
use crate::{
    capabilities::Residue,
    fault::Fault,
    observe::metrics::Sample,
    serve::{answers, status},
};

pub(super) enum Ending {
    /// Committed (or found committed) and acked, or handed back.
    Over(Outcome),
    /// What it wants can't be stored: a failure of this run.
    Unfit(Outcome),
    /// Run again on fresh state.
    Conflict,
}

/// Commits what a run asked for, and its answer if it is a call.
pub(super) async fn commit(
    work: &Work<'_>,
    snapshot: Snapshot,
    residue: Residue,
    answer: Option<Bytes>,
) -> Ending {
    let counted = Counted::of(&residue.change);
    let mut change = Change { event: work.cause(), ..residue.change };
    if work.decoded.is_call {
        change.effects.push(answer_of(work, &Ok(answer.unwrap_or_default())));
    }
    match store(work, snapshot, change).await {
        Ok(()) => {
            count(work, residue.samples.iter());
            counted.add(work);
            Ending::Over(Outcome::Done)
        }
        Err(CommitError::Conflict) => Ending::Conflict,
        Err(CommitError::Settled) => Ending::Over(Outcome::Duplicate),
        Err(CommitError::Unfit(reason)) => {
            Ending::Unfit(Outcome::failure(Failed::Unfit, Fault::Operator, &reason))
        }
        Err(CommitError::Bus(error)) => Ending::Over(Outcome::HandedBack(error.to_string())),
    }
}

/// Commits what follows from a failure.
pub(super) async fn failure(work: &Work<'_>, failure: Outcome, samples: &[Sample]) -> Outcome {
    match &failure {
        Outcome::Failure { .. } if work.decoded.is_call => no(work, failure, samples).await,
        Outcome::Failure { then: Then::Dead, .. } => dead_letter(work, failure, samples).await,
        Outcome::Failure { then: Then::Inbox(pause), .. } => {
            match in_place_of_effects(work, || again::change(work, *pause)).await {
                Ok(()) => failure,
                Err(CommitError::Unfit(reason)) => {
                    tracing::debug!(
                        event = work.decoded.event.id,
                        "its next attempt can't be committed and is counted by this host: {reason}"
                    );
                    let back = Then::Back(*pause);
                    failure.but(back)
                }
                Err(error) => other_end(error),
            }
        }
        _ => failure,
    }
}

/// The answer to a call that failed, or was refused.
async fn no(work: &Work<'_>, failure: Outcome, samples: &[Sample]) -> Outcome {
    let answer = answer_of(work, &Err(status::of_failure(&failure)));
    let (event, life) = (&work.decoded.event.id, work.decoded.past.life);
    let change = Change {
        event: work.cause(),
        // Another end of the call than its effects, and once for each life.
        ids: Some(format!("{event}.answer.{life}")),
        effects: vec![answer],
        ..Change::default()
    };
    match in_place_of_effects(work, || change.clone()).await {
        Ok(()) => {
            count(work, samples.iter().filter(|s| s.outlives_failure()));
            failure.but(Then::Answer)
        }
        Err(error) => other_end(error),
    }
}

fn answer_of(work: &Work<'_>, reply: &Reply) -> Message {
    answers::message(&work.plugin.name, &work.decoded.event.id, work.decoded.past.life, reply)
}

/// The dead letter of an event that is given up. One that does not fit is cut down to what names the event.
async fn dead_letter(work: &Work<'_>, failure: Outcome, samples: &[Sample]) -> Outcome {
    let letter = |size| dead_letter::change(work, &failure, size);
    let mut stored = in_place_of_effects(work, || letter(Size::Whole)).await;
    if let Err(CommitError::Unfit(_)) = stored {
        stored = in_place_of_effects(work, || letter(Size::Least)).await;
    }
    match stored {
        Ok(()) => {
            count(work, samples.iter().filter(|s| s.outlives_failure()));
            work.dispatch.services.metrics.dead_letters.with_label_values(&[work.plugin.name.as_str()]).inc();
            failure
        }
        Err(CommitError::Unfit(reason)) => {
            let failure = failure.reason().unwrap_or_default();
            Outcome::HandedBack(format!(
                "its dead letter can't be stored: {reason}; it was to say: {failure}"
            ))
        }
        Err(error) => other_end(error),
    }
}

/// Commits an end of the event that does not depend on what its cell holds. Never a conflict.
async fn in_place_of_effects(work: &Work<'_>, change: impl Fn() -> Change) -> Result<(), CommitError> {
    loop {
        let bus = &work.dispatch.services.bus;
        let snapshot = match bus.open(work.delivery, work.decoded.failure_point()).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => return Err(CommitError::Settled),
            Err(error) => return Err(CommitError::Bus(error)),
        };
        match store(work, snapshot, change()).await {
            Err(CommitError::Conflict) => {}
            stored => return stored,
        }
    }
}

/// Of an end that could not be committed.
fn other_end(error: CommitError) -> Outcome {
    match error {
        CommitError::Settled => Outcome::Duplicate,
        error => Outcome::HandedBack(error.to_string()),
    }
}

async fn store(work: &Work<'_>, snapshot: Snapshot, change: Change) -> Result<(), CommitError> {
    let committed = work.dispatch.services.bus.commit(work.delivery, snapshot, change).await?;
    for refused in &committed.refused {
        tracing::error!(
            plugin = work.plugin.name,
            event = work.decoded.event.id,
            subject = refused.subject,
            reason = refused.reason,
            fault = Fault::Operator.name(),
            "an effect was refused by its stream; its dead letter is stored in its place"
        );
    }
    Ok(())
}

/// What the guest counted counts once its event is settled.
fn count<'a>(work: &Work<'_>, samples: impl Iterator<Item = &'a Sample>) {
    for sample in samples {
        work.dispatch.services.metrics.add(sample);
    }
}

/// Effects by kind, for the metric.
struct Counted {
    publishes: u64,
    jobs: u64,
    writes: u64,
    timers: u64,
    cancels: u64,
}

impl Counted {
    fn of(change: &Change) -> Self {
        let jobs = change.effects.iter().filter(|m| m.subject.starts_with("cd.j.")).count() as u64;
        Self {
            publishes: change.effects.len() as u64 - jobs,
            jobs,
            writes: (change.writes.len() + change.others.iter().map(|o| o.writes.len()).sum::<usize>())
                as u64,
            timers: change.timers.len() as u64,
            cancels: change.cancels.len() as u64,
        }
    }

    fn add(&self, work: &Work<'_>) {
        let effects = &work.dispatch.services.metrics.effects;
        work.plugin.meters(&work.dispatch.services.metrics).publishes.inc_by(self.publishes);
        for (kind, count) in
            [("job", self.jobs), ("state", self.writes), ("timer", self.timers), ("cancel", self.cancels)]
        {
            if count > 0 {
                effects.with_label_values(&[work.plugin.name.as_str(), kind]).inc_by(count);
            }
        }
    }
}
