//! What agents answer of themselves, collected by task until all of them have answered or their time is over: then it is scored,
//! ranked and told, as if a council had been asked. It lives in the cell of the task's deliberations, beside their record.

mod collection;
mod own;
#[cfg(test)]
mod tests;

use cofferdam_sdk::{
    Failure,
    config::{self, ConfigError},
    debug, delivery, error,
    fleet::{AgentResponse, Incoming, Malformed},
    publish, warn,
};
use collection::{Collection, Taken};
use own::Overdue;

use crate::{WRITER, dropped, malformed, record, totals::What, verdict::Verdict};

/// What the subjects of the answers begin with that carry the task's id: `agent.results.<task_id>`.
pub(crate) const RESULTS: &str = "agent.results.";

/// The subject of the collector's own timer.
pub(crate) const OVERDUE: &str = own::SUBJECT;

/// A timer that fires later than this after its time was not waited for: nobody was there. So the answers may be waiting, too.
const NOBODY_THERE_MS: u64 = 30_000;
/// What they are given then.
const GRACE_SECONDS: u64 = 30;

/// `agent.response.completed`, `agent.response.failed` or `agent.results.*`.
pub(crate) fn answered(message: &Incoming) -> Result<(), Failure> {
    let response = AgentResponse::read(message);
    let Some(task_id) = response.task_id.as_deref() else {
        // A derivation's names its plan alone.
        return if response.is_ours(None) { Ok(()) } else { Err(malformed(nameless(message))) };
    };
    if not_collected()?.iter().any(|prefix| task_id.starts_with(prefix)) {
        return Ok(());
    }
    message.keyed_by(task_id).map_err(malformed)?;
    let mut collection = match Collection::load()? {
        Some(collection) if collection.ended => {
            debug!("an answer came late"; task_id = task_id, agent_id = response.agent_id.as_deref().unwrap_or_default());
            return dropped("late");
        }
        Some(collection) => collection,
        None if is_work(&response)? => return Ok(()),
        None => Collection::open(message, &response, task_id),
    };
    match collection.take(message, &response) {
        Taken::Kept => {}
        Taken::Repeated => return dropped("duplicate"),
        Taken::Nameless => {
            warn!("an answer names no agent and does not count"; task_id = task_id);
            return dropped("no_agent");
        }
        Taken::TooMany => {
            warn!("more agents answer than were asked at most"; task_id = task_id);
            return dropped("too_many");
        }
    }
    if collection.is_complete() {
        match collection.verdict(message.arrival()) {
            Ok(verdict) => return end(message, collection, &verdict),
            Err(failure) if leaves_room(&failure) => return Err(failure),
            // Nothing that was answered is lost: the timer makes an end of it.
            Err(failure) => error!("the answers can't be scored yet: {failure}"; task_id = task_id),
        }
    }
    if collection.timer.is_none() {
        let at = message.arrival().plus_seconds(collect_seconds()?);
        let overdue = Overdue::of(&collection, at, false);
        collection.timer = Some(WRITER.schedule(at, &collection.cause, &overdue, &overdue.operation())?);
    }
    record::save(&collection.in_progress())?;
    Ok(collection.save()?)
}

/// Whether an agent tells of its work, and proposes nothing: a council has deliberated over the task, and the agent alone was told to begin.
/// Where several were, somebody has to say whose work is the best.
fn is_work(response: &AgentResponse) -> Result<bool, Failure> {
    Ok(response.num_agents <= 1 && record::load()?.is_some())
}

/// A council has deliberated over the task of the event's own cell. Whatever its agents answer after that is no answer to a collection that is
/// over; one that is under way goes on.
pub(crate) fn superseded() -> Result<(), Failure> {
    delete_if(|collection| collection.ended)
}

/// The collection's hour is over.
pub(crate) fn forget(execution_id: &str) -> Result<(), Failure> {
    delete_if(|collection| collection.execution_id == execution_id)
}

fn delete_if(of: impl FnOnce(&Collection) -> bool) -> Result<(), Failure> {
    if Collection::load()?.is_some_and(|collection| of(&collection)) {
        Collection::delete()?;
    }
    Ok(())
}

/// `cofferdam.council.overdue`.
pub(crate) fn overdue(message: &Incoming) -> Result<(), Failure> {
    let overdue = Overdue::read(message).map_err(malformed)?;
    message.keyed_by(&overdue.task_id).map_err(malformed)?;
    let waits =
        |collection: &Collection| !collection.ended && collection.execution_id == overdue.execution_id;
    let Some(mut collection) = Collection::load()?.filter(waits) else { return Ok(()) };
    collection.timer = None;
    let late = message.arrival().millis_since(overdue.due);
    if late > NOBODY_THERE_MS && !overdue.again {
        let at = message.arrival().plus_seconds(GRACE_SECONDS);
        let again = Overdue::of(&collection, at, true);
        collection.timer = Some(WRITER.schedule(at, &collection.cause, &again, &again.operation())?);
        warn!("nobody waited for the answers until now, they get a little longer"; task_id = overdue.task_id, late_ms = late);
        return Ok(collection.save()?);
    }
    let verdict = match collection.verdict(message.arrival()) {
        Ok(verdict) => verdict,
        Err(failure) if leaves_room(&failure) => return Err(failure),
        Err(failure) => {
            error!("the answers can't be scored"; task_id = overdue.task_id, reason = failure);
            collection.unscored(message.arrival(), &failure)
        }
    };
    end(message, collection, &verdict)
}

/// Whether another run of the event may fare better.
fn leaves_room(failure: &Failure) -> bool {
    matches!(failure, Failure::Retry { .. }) && !delivery::last_attempt()
}

fn end(message: &Incoming, mut collection: Collection, verdict: &Verdict) -> Result<(), Failure> {
    if let Some(timer) = collection.timer.take() {
        publish::cancel(&timer)?;
    }
    let cause = message.cause().continuing(&collection.cause);
    verdict.conclude(&cause, &collection.task(), &collection.execution_id, What::Collection)?;
    // What is left tells a late answer from the first of another collection.
    Ok(collection.over().save()?)
}

fn nameless(message: &Incoming) -> Malformed {
    Malformed { subject: message.subject().to_owned(), reason: "it has no task_id".into() }
}

/// What task ids begin with that are somebody else's business.
fn not_collected() -> Result<Vec<String>, ConfigError> {
    let prefixes: Option<Vec<String>> = config::get("not_collected")?;
    Ok(prefixes.unwrap_or_else(|| vec![cofferdam_sdk::fleet::DERIVE_PREFIX.to_owned()]))
}

/// How long the first answer waits for the others.
fn collect_seconds() -> Result<u64, ConfigError> {
    config::get_or("collect_seconds", 300_u64)
}
