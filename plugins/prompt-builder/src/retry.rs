//! What follows a rejected answer: another attempt that tells the model what was wrong, or the end.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationRejected, Incoming, Record, Rejection},
    info, warn,
};

use crate::{compose, ending, prompt, settings::Settings, submit};

/// Of a detail that goes into a prompt, an event and a record.
const DETAIL_CHARS: usize = 600;

pub(crate) fn handle(message: &Incoming, rejected: &DerivationRejected) -> Result<(), Failure> {
    message.keyed_by(&rejected.stage.plan_id)?;
    let plan_id = rejected.stage.plan_id.as_str();
    let Some(mut record) = Record::load()?.filter(Record::is_open) else {
        info!("no derivation is open for this rejection"; plan_id = plan_id, kind = rejected.kind);
        return Ok(());
    };
    if rejected.stage.attempt < record.attempt || !record.seen.first_time(message) {
        info!("an earlier attempt was rejected, another is out"; plan_id = plan_id, attempt = rejected.stage.attempt);
        return Ok(());
    }
    let attempt = record.attempt;
    if let (Some(id), Some(entry)) = (&rejected.deliberation_id, record.attempt_mut(attempt)) {
        entry.deliberation_id = Some(id.clone());
    }
    next(message, record, &Settings::load()?, &rejected.kind, &rejected.detail)
}

/// The attempt that is out has come to nothing: submits the next, or, after the last, fails the derivation.
pub(crate) fn next(
    message: &Incoming,
    mut record: Record,
    settings: &Settings,
    kind: &Rejection,
    detail: &str,
) -> Result<(), Failure> {
    let detail: String = detail.chars().take(DETAIL_CHARS).collect();
    let attempt = record.attempt;
    if let Some(entry) = record.attempt_mut(attempt) {
        entry.rejected = Some(format!("{kind}: {detail}"));
    }
    // Asking the model again does not mend Planning, and dependency-analyzer has tried often enough.
    let hopeless = *kind == Rejection::PlanningError;
    if hopeless || record.attempt > settings.max_retries {
        let detail = format!("{detail} (attempt {} of {})", record.attempt, settings.max_retries + 1);
        return ending::fail(message, record, kind.as_str(), &detail);
    }
    warn!("asking again"; plan_id = record.plan_id, kind = kind, detail = detail, attempt = record.attempt + 1);
    let started = base_prompt(&mut record, settings).and_then(|(base, kept)| {
        submit::submit(&mut record, settings, &prompt::again(&base, kind, &detail))?;
        Ok((base, kept))
    });
    match started {
        Ok((base, kept)) => {
            if !kept {
                Record::save_prompt(&base)?;
            }
            Ok(record.save()?)
        }
        Err(trouble) => ending::trouble(message, record, trouble),
    }
}

/// The prompt of the first attempt and whether it was kept; if not, because another plugin opened the record, it is
/// written anew.
fn base_prompt(record: &mut Record, settings: &Settings) -> Result<(String, bool), ending::Trouble> {
    let kept = Record::prompt().map_err(|error| ending::Trouble::passing("state", error.to_string()))?;
    if let Some(prompt) = kept {
        return Ok((prompt, true));
    }
    let roles = record.roles.clone();
    Ok((compose::compose(record, &roles, settings)?, false))
}
