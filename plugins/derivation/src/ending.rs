//! The end of a derivation that fails: its record, its one event, its count.

use cofferdam_sdk::{
    Failure, delivery, error,
    fleet::{DerivationFailed, Incoming, Record},
    metrics, warn,
};

use crate::Strategy;

/// Of a reason: an upstream's message may be of any length.
const REASON_CHARS: usize = 1_000;

/// Why a derivation can't go on.
#[derive(Debug)]
pub struct Trouble {
    /// The label of the metric and the beginning of the reason.
    kind: String,
    detail: String,
    /// A later run may fare better.
    passing: bool,
}

impl Trouble {
    pub fn passing(kind: &str, detail: String) -> Self {
        Self { kind: kind.into(), detail, passing: true }
    }

    pub fn last(kind: &str, detail: String) -> Self {
        Self { kind: kind.into(), detail, passing: false }
    }
}

impl Strategy {
    /// Tries again as long as that may help and is allowed; else the derivation has failed and a person has to look.
    pub fn trouble(self, message: &Incoming, record: Record, trouble: Trouble) -> Result<(), Failure> {
        let Trouble { kind, detail, passing } = trouble;
        if passing && !delivery::last_attempt() {
            warn!(
                "will try again: {detail}";
                plan_id = record.plan_id, story_id = record.story_id, delivery = delivery::attempt(),
            );
            return Err(Failure::retry(format!("{kind}: {detail}")));
        }
        self.fail(message, record, &kind, &detail)
    }

    /// Ends the derivation: exactly one `task.derivation.failed`.
    pub fn fail(
        self,
        message: &Incoming,
        mut record: Record,
        kind: &str,
        detail: &str,
    ) -> Result<(), Failure> {
        let reason: String = format!("{kind}: {detail}").chars().take(REASON_CHARS).collect();
        error!("the derivation failed"; plan_id = record.plan_id, story_id = record.story_id, reason = reason);
        self.disarm(&mut record)?;
        let event =
            DerivationFailed::new(&record.plan_id, &record.story_id, &reason, &record.request_id(None));
        let cause = message.cause().continuing(&record.cause);
        self.writer.emit(&cause, &event, &record.operation("failed"))?;
        record.fail(&reason);
        record.save()?;
        metrics::count("task_derivation_failed", &[("reason", kind)])?;
        Ok(())
    }
}
