//! What a trigger leads to: a first attempt, at once or in its requester's turn.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Record},
    warn,
};
use fleet_derivation::{Opening, Request, is_guarded};

use crate::{STRATEGY, compose, settings::Settings, submit, turn};

pub(crate) fn handle(message: &Incoming, request: &Request) -> Result<(), Failure> {
    let settings = Settings::load()?;
    match request.open(STRATEGY, message)? {
        Opening::Followed => Ok(()),
        Opening::Open(record) if turn::is_lost(&record, message, &settings) => {
            warn!("it begins without its turn, which never came"; plan_id = record.plan_id);
            start(message, *record, &settings)
        }
        Opening::Open(mut record) => {
            if !is_guarded(&record, message) {
                STRATEGY.rearm(&mut record, message, settings.attempt_seconds())?;
            }
            Ok(record.save()?)
        }
        Opening::New(record) if settings.rate_limit > 0 => match turn::ask(message, *record)? {
            Some(record) => start(message, record, &settings),
            None => Ok(()),
        },
        Opening::New(record) => start(message, *record, &settings),
    }
}

/// Submits the first attempt.
pub(crate) fn start(message: &Incoming, mut record: Record, settings: &Settings) -> Result<(), Failure> {
    let started = compose::compose(&mut record, settings).and_then(|prompt| {
        submit::submit(&mut record, settings, &prompt)?;
        Ok(prompt)
    });
    match started {
        Ok(prompt) => {
            Record::save_prompt(&prompt)?;
            submit::arm(message, &mut record, settings)?;
            Ok(record.save()?)
        }
        Err(trouble) => STRATEGY.trouble(message, record, trouble),
    }
}
