//! What starts a derivation: an approved plan or a request, of which one at a time is followed.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationRequested, Incoming, PlanApproved, Record},
    info, metrics,
};

use crate::{compose, ending, settings::Settings, submit};

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
    let mut earlier = Record::load()?;
    if let Some(record) = &mut earlier {
        if !record.seen.first_time(message) {
            info!("the same request was followed before"; plan_id = request.plan_id, run = record.run);
            return Ok(());
        }
        if record.is_open() {
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

    let settings = Settings::load()?;
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
