//! What starts a derivation: an approved plan or a request, of which one at a time is followed.

use cofferdam_sdk::{
    Failure,
    fleet::{DerivationRequested, Incoming, Malformed, PlanApproved, Record},
    info, metrics,
};

use crate::Strategy;

/// Either trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub plan_id: String,
    pub story_id: Option<String>,
    /// As they were sent.
    pub roles: Vec<String>,
    pub requested_by: Option<String>,
}

/// What a trigger leads to.
#[derive(Debug)]
pub enum Opening {
    /// A derivation, which is not saved yet. Its roles are the requested ones, as they were sent.
    New(Box<Record>),
    /// One of this plan is open already. It has to be saved, for it has taken note of the trigger.
    Open(Box<Record>),
    /// The trigger was followed before.
    Followed,
}

impl Request {
    /// Nothing if the message is none.
    pub fn read(message: &Incoming) -> Result<Option<Self>, Malformed> {
        Ok(match message.subject() {
            PlanApproved::SUBJECT => Some(PlanApproved::read(message)?.into()),
            DerivationRequested::SUBJECT => Some(DerivationRequested::read(message)?.into()),
            _ => None,
        })
    }

    /// Counts the trigger, once it is settled: so a request that is tried again is still one.
    pub fn open(&self, strategy: Strategy, message: &Incoming) -> Result<Opening, Failure> {
        message.keyed_by(&self.plan_id)?;
        metrics::count("task_derivation_requests_received", &[])?;
        let mut earlier = Record::load()?;
        if let Some(record) = &mut earlier {
            if !record.seen.first_time(message) {
                info!("the same request was followed before"; plan_id = self.plan_id, run = record.run);
                return Ok(Opening::Followed);
            }
            if record.is_open() {
                info!("a derivation of this plan is open already"; plan_id = self.plan_id, attempt = record.attempt);
                return Ok(Opening::Open(Box::new(std::mem::take(record))));
            }
            // However late it is read: by the clock of the streams another was open when it was made.
            if record.covers(message.arrival()) {
                info!("the request came before the end of the plan's last derivation"; plan_id = self.plan_id);
                record.save()?;
                return Ok(Opening::Followed);
            }
            strategy.disarm(record)?;
        }
        let mut record = Record::open(&self.plan_id, message.cause(), earlier);
        record.seen.first_time(message);
        record.story_id = self.story_id.clone().unwrap_or_default();
        record.requested_by.clone_from(&self.requested_by);
        record.roles.clone_from(&self.roles);
        info!("deriving tasks"; plan_id = self.plan_id, story_id = record.story_id, run = record.run);
        Ok(Opening::New(Box::new(record)))
    }
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
