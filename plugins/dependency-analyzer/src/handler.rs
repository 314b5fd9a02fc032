//! From `parsed` to the end of a derivation: tasks in Planning and `task.derivation.completed`, or `rejected`.

use cofferdam_sdk::{
    Event, Failure, config, delivery, error,
    fleet::{
        DerivationCompleted, DerivationParsed, DerivationRejected, Incoming, Record, Rejection as Kind,
        Stage, Timestamp, Writer, requested_roles,
    },
    info, metrics, warn,
};
use fleet_tasks::DEFAULT_ROLE;

use crate::{
    analysis::{Analysis, Rejection, Settings, analyze},
    planning::{self, Trouble},
};

const WRITER: Writer = Writer::new(env!("CARGO_PKG_NAME"));

/// One batch of tasks, from output-parser or from whoever stands in its place. Once the derivation has ended it has no
/// effect.
pub fn handle(event: Event) -> Result<(), Failure> {
    let message = Incoming::read(&event)?;
    let parsed = DerivationParsed::read(&message)?;
    let plan_id = parsed.stage.plan_id.as_str();
    message.keyed_by(plan_id)?;
    let known = Record::load()?;
    let started = known.as_ref().map(|record| record.opened_at);
    if known.as_ref().is_some_and(|record| !record.concerns(parsed.stage.run, message.arrival())) {
        info!("these tasks are of an earlier derivation of the plan"; plan_id = plan_id);
        return Ok(());
    }
    let mut record = known.unwrap_or_else(|| opened(&message, &parsed));
    if !record.is_open() || !record.seen.first_time(&message) {
        info!("the derivation has ended, or these tasks were taken before"; plan_id = plan_id);
        return Ok(());
    }
    let settings = Settings {
        max_tasks: config::get_or("max_tasks", 8_u8)?,
        max_hours: config::get_or("max_hours", 40)?,
    };
    let roles = if parsed.roles.is_empty() { &record.roles } else { &parsed.roles };
    let analysis = match analyze(&parsed.tasks, roles, &settings) {
        Ok(analysis) => analysis,
        Err(rejection) => return reject(&message, &parsed, record, rejection),
    };
    for warning in &analysis.warnings {
        warn!("{warning}"; plan_id = plan_id);
        record.warn(warning.clone());
    }
    match store(&parsed, &record, &analysis) {
        Ok(story_id) => complete(&message, &parsed, record, &story_id, &analysis, started),
        Err(trouble) if trouble.passing && !delivery::last_attempt() => {
            warn!(
                "will try again: {}", trouble.detail;
                plan_id = plan_id, story_id = record.story_id, delivery = delivery::attempt(),
            );
            Err(Failure::retry(trouble.detail))
        }
        Err(trouble) => {
            let (story_id, reason) = (&record.story_id, &trouble.detail);
            error!("Planning did not store the tasks"; plan_id = plan_id, story_id = story_id, reason = reason);
            let rejection = Rejection { kind: Kind::PlanningError, detail: trouble.detail };
            reject(&message, &parsed, record, rejection)
        }
    }
}

/// The record of tasks that nobody here asked for.
fn opened(message: &Incoming, parsed: &DerivationParsed) -> Record {
    let (mut roles, _) = requested_roles(&parsed.roles);
    if roles.is_empty() {
        roles.push(DEFAULT_ROLE.into());
    }
    let stage = &parsed.stage;
    Record {
        story_id: stage.story_id.clone(),
        roles,
        attempt: stage.attempt,
        ..Record::open(&stage.plan_id, message.cause(), None)
    }
}

/// Stores everything in Planning; returns the story's id.
fn store(parsed: &DerivationParsed, record: &Record, analysis: &Analysis) -> Result<String, Trouble> {
    let plan_id = &parsed.stage.plan_id;
    let known = [&parsed.stage.story_id, &record.story_id].into_iter().find(|id| !id.is_empty());
    let story_id = match known {
        Some(story_id) => story_id.clone(),
        None => planning::story_of(plan_id)?,
    };
    let new = planning::store(plan_id, &story_id, analysis)?;
    let (all, edges) = (analysis.tasks.len(), analysis.edges.len());
    info!("stored"; plan_id = plan_id, story_id = story_id, tasks = all, new = new, dependencies = edges);
    Ok(story_id)
}

/// Ends the derivation: its one `task.derivation.completed`.
fn complete(
    message: &Incoming,
    parsed: &DerivationParsed,
    mut record: Record,
    story_id: &str,
    analysis: &Analysis,
    started: Option<Timestamp>,
) -> Result<(), Failure> {
    let count = u32::try_from(analysis.tasks.len()).unwrap_or(u32::MAX);
    let request_id = record.request_id(parsed.deliberation_id.as_deref());
    let event = DerivationCompleted::new(&parsed.stage.plan_id, story_id, count, &request_id);
    WRITER.emit(&message.cause().continuing(&record.cause), &event, &record.operation("completed"))?;
    info!("the derivation is completed"; plan_id = parsed.stage.plan_id, story_id = story_id, tasks = count);
    story_id.clone_into(&mut record.story_id);
    record.complete(count);
    record.save()?;
    metrics::count("task_derivation_succeeded", &[])?;
    if let Some(started) = started {
        let took = Timestamp::now().millis_since(started);
        metrics::observe("task_derivation_processing_time_ms", &[], took as f64)?;
    }
    Ok(())
}

fn reject(
    message: &Incoming,
    parsed: &DerivationParsed,
    mut record: Record,
    rejection: Rejection,
) -> Result<(), Failure> {
    let attempt = parsed.stage.attempt;
    warn!("the tasks can't be stored: {rejection}"; plan_id = parsed.stage.plan_id, attempt = attempt);
    let known = || record.current_attempt()?.deliberation_id.clone();
    let story_id = [&parsed.stage.story_id, &record.story_id].into_iter().find(|id| !id.is_empty());
    let event = DerivationRejected {
        stage: Stage {
            story_id: story_id.cloned().unwrap_or_default(),
            run: Some(record.run),
            ..parsed.stage.clone()
        },
        kind: rejection.kind,
        detail: rejection.detail,
        deliberation_id: parsed.deliberation_id.clone().or_else(known),
    };
    let cause = message.cause().continuing(&record.cause);
    WRITER.emit(&cause, &event, &record.attempt_operation("rejected", attempt))?;
    Ok(record.save()?)
}
