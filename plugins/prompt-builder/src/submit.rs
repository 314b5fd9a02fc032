//! One attempt: the job that the executor gets.

use cofferdam_sdk::{
    Failure,
    executor::{ExecutorError, Job},
    fleet::{Incoming, Record, Timestamp, derivation_id},
    info,
};
use fleet_derivation::Trouble;

use crate::{STRATEGY, settings::Settings};

const AGENT: &str = "task-deriver";

/// Submits the next attempt and notes it in the record.
pub(crate) fn submit(record: &mut Record, settings: &Settings, prompt: &str) -> Result<(), Trouble> {
    let task_id = derivation_id(&record.plan_id);
    let attempt = record.attempt + 1;
    let mut job = Job::new(&task_id, &settings.role, prompt)
        .agent(AGENT, &settings.role)
        .plan_id(&record.plan_id)
        .story_id(&record.story_id)
        .timeout_seconds(settings.timeout_seconds)
        .max_retries(settings.max_retries)
        .metadata("task_id", &task_id)
        .metadata("attempt", attempt.to_string())
        // Tells a late answer to an earlier derivation of the plan from one to this.
        .metadata("run", record.run.to_string())
        .metadata("correlation_id", record.cause.correlation())
        .metadata("temperature", settings.temperature.to_string())
        .metadata("max_tokens", settings.max_tokens.to_string());
    job.model.clone_from(&settings.model);
    let job_id = job.submit().map_err(|error| match error {
        ExecutorError::Unavailable(_) => Trouble::passing("executor_unavailable", error.to_string()),
        _ => Trouble::last("executor_refused", error.to_string()),
    })?;
    record.submitted(&job_id);
    info!("submitted"; plan_id = record.plan_id, attempt = attempt, job = job_id, prompt_bytes = prompt.len());
    Ok(())
}

/// Sets the time-out of what was submitted.
pub(crate) fn arm(message: &Incoming, record: &mut Record, settings: &Settings) -> Result<(), Failure> {
    let at = Timestamp::now().plus_seconds(settings.attempt_seconds());
    STRATEGY.arm(record, &message.cause(), at)
}
