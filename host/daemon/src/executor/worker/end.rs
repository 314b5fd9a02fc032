//! Commits the end of a job: as it is, or as much of it as can be stored.

use cofferdam_bus::{Change, CommitError, Committed, Delivery, Snapshot};

use super::{PAUSE, Worker};
use crate::{
    dispatch::hand_back,
    executor::{
        ending::{CANCELLED, Case, Ending},
        status::Record,
    },
    observe::trace,
};

impl Worker {
    pub(super) async fn end(
        &self,
        delivery: &Delivery,
        snapshot: &Snapshot,
        case: &Case<'_>,
        mut ending: Ending,
        trace: &str,
    ) {
        let id = &case.queued.id;
        // Another may have worked it meanwhile, from a durable made anew.
        if matches!(self.has_ended_before(delivery, case.queued).await, Ok(true)) {
            return self.drop_quietly(delivery, snapshot.clone(), "repeated").await;
        }
        loop {
            for effect in &mut ending.effects {
                effect.headers.push((trace::HEADER.into(), trace.to_owned()));
            }
            // Its own, whatever the durable that it came from: see the head of this folder.
            let ids = Some(id.clone());
            let change = Change { effects: ending.effects.clone(), ids, ..Change::default() };
            match self.services.bus.commit(delivery, snapshot.clone(), change).await {
                Ok(committed) => {
                    self.tries.over(id);
                    self.ended(delivery, &committed, ending.outcome);
                    return self.count(case, &ending);
                }
                Err(CommitError::Settled | CommitError::Conflict) => {
                    self.tries.over(id);
                    tracing::debug!(event = delivery.id(), "another worker was first");
                    return;
                }
                Err(CommitError::Unfit(reason)) => match case.less(ending, &reason) {
                    Some(less) => ending = less,
                    None => return later(delivery, &reason).await,
                },
                Err(CommitError::Bus(error)) => return later(delivery, &error.to_string()).await,
            }
        }
    }

    /// Nothing is told of what can't be read, or has been told before.
    pub(super) async fn drop_quietly(&self, delivery: &Delivery, snapshot: Snapshot, outcome: &str) {
        match self.services.bus.commit(delivery, snapshot, Change::default()).await {
            Ok(committed) => self.ended(delivery, &committed, outcome),
            Err(CommitError::Settled) => {}
            Err(error) => later(delivery, &error.to_string()).await,
        }
    }

    fn ended(&self, delivery: &Delivery, committed: &Committed, outcome: &str) {
        for refused in &committed.refused {
            let (subject, reason) = (&refused.subject, &refused.reason);
            tracing::error!(event = delivery.id(), subject, "a result was refused: {reason}");
        }
        self.services.metrics.jobs.with_label_values(&[self.config.backend.name(), outcome]).inc();
    }

    fn count(&self, case: &Case<'_>, ending: &Ending) {
        let Record { tokens_in, tokens_out, model, kind, .. } = &ending.record;
        let (plugin, metrics) = (case.queued.plugin.as_str(), &self.services.metrics.executor);
        if ending.record.ended == 0 {
            return;
        }
        let model = metrics.model(model);
        metrics.worked.with_label_values(&[model]).observe(case.duration_ms as f64 / 1000.0);
        if let Some(kind) = kind {
            metrics.failed.with_label_values(&[kind]).inc();
        }
        if !ending.record.answer.as_ref().is_some_and(|answer| answer.cached) {
            metrics.tokens_in.with_label_values(&[plugin, model]).inc_by(*tokens_in);
            metrics.tokens_out.with_label_values(&[plugin, model]).inc_by(*tokens_out);
        }
        self.book.count(|totals| {
            match ending.outcome {
                "done" => totals.done += 1,
                CANCELLED => totals.cancelled += 1,
                _ => totals.failed += 1,
            }
            totals.worked_ms += case.duration_ms;
            totals.tokens_in = totals.tokens_in.saturating_add(*tokens_in);
            totals.tokens_out = totals.tokens_out.saturating_add(*tokens_out);
        });
    }
}

/// Another try, here or elsewhere.
pub(super) async fn later(delivery: &Delivery, why: &str) {
    tracing::warn!(event = delivery.id(), deliveries = delivery.count, "the job waits: {why}");
    hand_back(delivery, Some(PAUSE)).await;
}
