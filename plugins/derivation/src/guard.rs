//! What wakes up a derivation that nothing else does: one timer at a time, its id in the record.

use cofferdam_sdk::{
    Failure, debug,
    fleet::{Cause, DerivationTimeout, Incoming, Outgoing, Record, Timer, Timestamp},
    publish::{self, EmitError},
    warn,
};

use crate::Strategy;

/// What may pass from an answer to the derivation's end: three tries to store its tasks, of a minute each, and the pauses
/// between them. Nobody waits for it.
pub const STORING_SECONDS: u64 = 300;
/// A timer that fires later than this found no host when it was due.
const LATE_MS: u64 = 10_000;
/// One that is overdue by more is not under way any more.
const LOST_SECONDS: u64 = 60;

impl Strategy {
    /// Sets the time-out of the attempt that was submitted last, in place of the timer that is set.
    pub fn arm(self, record: &mut Record, cause: &Cause, at: Timestamp) -> Result<(), Failure> {
        let timeout = DerivationTimeout {
            stage: record.stage(record.attempt),
            deliberation_id: record.current_attempt().and_then(|attempt| attempt.deliberation_id.clone()),
            timestamp: at,
        };
        // An attempt may be given more time, once or more.
        let operation = format!("{}:{}", record.attempt_operation("timeout", record.attempt), at.nanos());
        self.set(record, cause, at, &timeout, &operation).map(drop)
    }

    /// Sets a timer, in place of the one that is set. False if the operator does not allow it.
    pub fn set<M: Outgoing>(
        self,
        record: &mut Record,
        cause: &Cause,
        at: Timestamp,
        message: &M,
        operation: &str,
    ) -> Result<bool, Failure> {
        self.disarm(record)?;
        let cause = cause.clone().continuing(&record.cause);
        match self.writer.schedule(at, &cause, message, operation) {
            Ok(id) => {
                record.timer = Some(Timer { id, at, by: self.name.into() });
                Ok(true)
            }
            Err(error @ EmitError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                warn!("no timer is set: {error}"; plan_id = record.plan_id, subject = M::SUBJECT);
                Ok(false)
            }
        }
    }

    /// Takes back the timer that is set. Only who set it can; another's fires without effect.
    pub fn disarm(self, record: &mut Record) -> Result<(), Failure> {
        match record
            .timer
            .take()
            .filter(|timer| timer.by == self.name)
            .map(|timer| publish::cancel(&timer.id))
        {
            // It is configured under another name by now.
            None | Some(Ok(()) | Err(EmitError::Denied(_))) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Gives a timer to an open derivation that has none or has lost it: one that an older version opened, or an answer that
    /// nobody asked for, or another strategy. `seconds` are those of an attempt.
    pub fn rearm(self, record: &mut Record, message: &Incoming, seconds: u64) -> Result<(), Failure> {
        let submitted = record.current_attempt().map(|attempt| attempt.submitted_at).unwrap_or_default();
        let at = submitted.max(record.opened_at).plus_seconds(seconds);
        self.arm(record, &message.cause(), at.max(message.arrival()))
    }

    /// The attempt that is out has had its time: what to say of it, or nothing if it gets more. It does if its answer is being
    /// stored, or if no host was there when the time was over: what was answered meanwhile may have to be read yet.
    fn judge(
        self,
        message: &Incoming,
        due: Timestamp,
        mut record: Record,
        seconds: u64,
    ) -> Result<Option<(Record, String)>, Failure> {
        let now = message.arrival();
        let answered = record.current_attempt().and_then(|attempt| attempt.answered_at);
        let (given, detail) = match answered {
            Some(_) => (
                STORING_SECONDS,
                format!("its answer came, but its tasks were not stored within {STORING_SECONDS} s"),
            ),
            None => (seconds, format!("no answer within {seconds} s")),
        };
        let until = if now.millis_since(due) > LATE_MS {
            now.plus_seconds(given)
        } else {
            answered.unwrap_or_default().plus_seconds(STORING_SECONDS)
        };
        if until <= now {
            return Ok(Some((record, detail)));
        }
        debug!("the attempt gets more time"; plan_id = record.plan_id, until = until);
        self.arm(&mut record, &message.cause(), until)?;
        record.save()?;
        Ok(None)
    }
}

/// Whether an open derivation will be woken up, as far as can be told: by its timer, or, before its first attempt, by its
/// turn, of which the strategy that lets it wait has to know when it is lost.
pub fn is_guarded(record: &Record, message: &Incoming) -> bool {
    let is_live = |timer: &Timer| timer.at.plus_seconds(LOST_SECONDS) > message.arrival();
    record.attempt == 0 || record.timer.as_ref().is_some_and(is_live)
}

/// The derivation whose attempt is over by this message, and what to say of it; nothing if it is of no consequence: the
/// derivation has ended, or its attempt is not out any more, or gets more time.
pub fn over(
    strategy: Strategy,
    message: &Incoming,
    timeout: &DerivationTimeout,
    seconds: u64,
) -> Result<Option<(Record, String)>, Failure> {
    let stage = &timeout.stage;
    message.keyed_by(&stage.plan_id)?;
    let Some(mut record) = Record::load()?.filter(Record::is_open) else { return Ok(None) };
    // What has fired need not be taken back.
    record.timer.take_if(|timer| timer.at <= message.arrival());
    let named = timeout.deliberation_id.as_deref().and_then(|id| record.attempt_of(id));
    let another = named.is_some_and(|attempt| attempt.attempt != record.attempt);
    let concerns = stage.attempt == record.attempt && record.concerns(stage.run, message.arrival());
    if concerns && !another && record.is_out(stage.attempt) {
        return strategy.judge(message, timeout.timestamp, record, seconds);
    }
    // It was rejected, and nothing would bring the next.
    if concerns && record.attempt > 0 && record.rests() && record.timer.is_none() {
        return Ok(Some((record, "it was rejected, and no attempt followed".into())));
    }
    debug!("the time-out of an attempt that is over"; plan_id = stage.plan_id, attempt = stage.attempt);
    Ok(None)
}
