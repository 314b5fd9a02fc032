//! What follows an attempt that came to nothing, be it rejected or out of time: another, which tells the model what was wrong,
//! or the end.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationRejected, DerivationTimeout, Incoming, Record, Rejection, Timestamp},
    info, warn,
};
use fleet_derivation::{Trouble, over};

use crate::{STRATEGY, compose, own::Due, prompt, settings::Settings, submit};

/// Of a detail that goes into a prompt, an event and a record.
const DETAIL_CHARS: usize = 600;

pub(crate) fn rejected(message: &Incoming, rejected: &DerivationRejected) -> Result<(), Failure> {
    let stage = &rejected.stage;
    message.keyed_by(&stage.plan_id)?;
    let plan_id = stage.plan_id.as_str();
    let Some(mut record) = Record::load()?.filter(Record::is_open) else {
        info!("no derivation is open for this rejection"; plan_id = plan_id, kind = rejected.kind);
        return Ok(());
    };
    let is_earlier = stage.attempt < record.attempt || !record.concerns(stage.run, message.arrival());
    if is_earlier || record.rests() || !record.seen.first_time(message) {
        info!("this attempt is over already"; plan_id = plan_id, attempt = stage.attempt, kind = rejected.kind);
        return Ok(());
    }
    let attempt = record.attempt;
    if let (Some(id), Some(entry)) = (&rejected.deliberation_id, record.attempt_mut(attempt)) {
        entry.deliberation_id = Some(id.clone());
    }
    next(message, record, &rejected.kind, &rejected.detail)
}

pub(crate) fn timed_out(message: &Incoming, timeout: &DerivationTimeout) -> Result<(), Failure> {
    let settings = Settings::load()?;
    match over(STRATEGY, message, timeout, settings.attempt_seconds())? {
        None => Ok(()),
        Some((record, _)) if record.rests() => again(message, record, &settings),
        Some((record, detail)) => next(message, record, &Rejection::Timeout, &detail),
    }
}

/// The attempt that is out has come to nothing: the next follows after a pause, or, after the last, the derivation fails.
fn next(message: &Incoming, mut record: Record, kind: &Rejection, detail: &str) -> Result<(), Failure> {
    let settings = Settings::load()?;
    let detail: String = detail.chars().take(DETAIL_CHARS).collect();
    record.rejected(&format!("{kind}: {detail}"));
    // Asking the model again does not mend Planning, and dependency-analyzer has tried often enough.
    let hopeless = *kind == Rejection::PlanningError;
    if hopeless || record.attempt > settings.max_retries {
        let detail = format!("{detail} (attempt {} of {})", record.attempt, settings.max_retries + 1);
        return STRATEGY.fail(message, record, kind.as_str(), &detail);
    }
    let pause = settings.backoff_seconds;
    warn!(
        "asking again";
        plan_id = record.plan_id, story_id = record.story_id, kind = kind, detail = detail,
        attempt = record.attempt + 1, pause_seconds = pause,
    );
    if pause > 0 {
        let due = Due { stage: record.stage(record.attempt + 1) };
        let at = Timestamp::now().plus_seconds(pause);
        if STRATEGY.set(&mut record, &message.cause(), at, &due, &due.operation())? {
            return Ok(record.save()?);
        }
    }
    again(message, record, &settings)
}

/// Submits the attempt after the one that was rejected.
pub(crate) fn again(message: &Incoming, mut record: Record, settings: &Settings) -> Result<(), Failure> {
    let reason = record.current_attempt().and_then(|attempt| attempt.rejected.clone()).unwrap_or_default();
    let (kind, detail) = reason.split_once(": ").unwrap_or((&reason, ""));
    let submitted = base_prompt(&mut record, settings).and_then(|(base, kept)| {
        let prompt = prompt::again(&base, &Rejection::parse(kind), detail);
        submit::submit(&mut record, settings, &prompt)?;
        Ok((base, kept))
    });
    match submitted {
        Ok((base, kept)) => {
            if !kept {
                Record::save_prompt(&base)?;
            }
            submit::arm(message, &mut record, settings)?;
            Ok(record.save()?)
        }
        Err(trouble) => STRATEGY.trouble(message, record, trouble),
    }
}

/// The prompt of the first attempt and whether it was kept; if not, because another plugin opened the record, it is
/// written anew.
fn base_prompt(record: &mut Record, settings: &Settings) -> Result<(String, bool), Trouble> {
    let kept = Record::prompt().map_err(|error| Trouble::passing("state", error.to_string()))?;
    match kept {
        Some(prompt) => Ok((prompt, true)),
        None => Ok((compose::compose(record, settings)?, false)),
    }
}
