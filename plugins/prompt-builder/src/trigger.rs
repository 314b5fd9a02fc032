//! What starts a derivation: an approved plan or a request, of which one at a time is followed.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationRequested, Incoming, PlanApproved, Record, Rejection, Timestamp},
    info, metrics,
};

use crate::{compose, ending, retry, settings::Settings, submit};

/// An answer may take this long beyond the executor's own time-out.
const SLACK_SECONDS: u64 = 30;
/// The executor's time-out for a job that names none.
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;

/// Either trigger.
pub(crate) struct Request {
    pub(crate) plan_id: String,
    pub(crate) story_id: Option<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) requested_by: Option<String>,
}

impl From<PlanApproved> for Request {
    fn from(plan: PlanApproved) -> Self {
        Self {
            plan_id: plan.plan_id,
            story_id: plan.story_id,
            roles: plan.roles,
            requested_by: plan.approved_by,
        }
    }
}

impl From<DerivationRequested> for Request {
    fn from(request: DerivationRequested) -> Self {
        Self {
            plan_id: request.plan_id,
            story_id: request.story_id,
            roles: request.roles,
            requested_by: request.requested_by,
        }
    }
}

pub(crate) fn handle(message: &Incoming, request: Request) -> Result<(), Failure> {
    message.keyed_by(&request.plan_id)?;
    // Counted when the event is settled, so a request that is tried again is still one.
    metrics::count("task_derivation_requests_received", &[])?;
    let settings = Settings::load()?;
    let mut earlier = Record::load()?;
    if let Some(record) = &mut earlier {
        if !record.seen.first_time(message) {
            info!("the same request was followed before"; plan_id = request.plan_id, run = record.run);
            return Ok(());
        }
        if record.is_open() {
            if let Some(detail) = overdue(record, &settings) {
                let record = std::mem::take(record);
                return retry::next(message, record, &settings, &Rejection::Timeout, &detail);
            }
            info!("a derivation of this plan is open already"; plan_id = request.plan_id, attempt = record.attempt);
            // It was acked, so its repeat after the end of this derivation is a repeat too.
            return Ok(record.save()?);
        }
    }
    let mut record = Record::open(&request.plan_id, message.cause(), earlier);
    record.seen.first_time(message);
    record.story_id = request.story_id.clone().unwrap_or_default();
    record.requested_by = request.requested_by.clone();
    info!("deriving tasks"; plan_id = request.plan_id, story_id = record.story_id, run = record.run);

    let started = compose::compose(&mut record, &request.roles, &settings).and_then(|prompt| {
        submit::submit(&mut record, &settings, &prompt)?;
        Ok(prompt)
    });
    match started {
        Ok(prompt) => {
            Record::save_prompt(&prompt)?;
            Ok(record.save()?)
        }
        Err(trouble) => ending::trouble(message, record, trouble),
    }
}

/// How long the attempt that is out has been silent, if that is longer than it may be. Until a timer tells, a further
/// trigger is when a lost answer comes to light.
fn overdue(record: &Record, settings: &Settings) -> Option<String> {
    let seconds = match settings.timeout_seconds {
        0 => DEFAULT_TIMEOUT_SECONDS,
        seconds => seconds,
    };
    // A record that another plugin opened for an unrequested answer has no job.
    let submitted = record.current_attempt().map(|attempt| attempt.submitted_at).unwrap_or_default();
    let silent = Timestamp::now().millis_since(submitted.max(record.opened_at)) / 1_000;
    (silent > u64::from(seconds) + SLACK_SECONDS)
        .then(|| format!("no answer for {silent} s, timeout_seconds is {seconds}"))
}
