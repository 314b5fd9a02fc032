//! An attempt whose time has come: the first, in its requester's turn, or one after a pause.

use cofferdam_sdk::{
    Failure, debug,
    fleet::{Incoming, Record},
};

use crate::{own::Due, retry, settings::Settings, trigger};

pub(crate) fn handle(message: &Incoming, due: &Due) -> Result<(), Failure> {
    let stage = &due.stage;
    message.keyed_by(&stage.plan_id)?;
    let waits = |record: &Record| {
        record.rests() && record.attempt + 1 == stage.attempt && record.concerns(stage.run, message.arrival())
    };
    let Some(mut record) = Record::load()?.filter(waits) else {
        debug!("nothing waits for this attempt"; plan_id = stage.plan_id, attempt = stage.attempt);
        return Ok(());
    };
    // It has fired.
    record.timer = None;
    let settings = Settings::load()?;
    if record.attempt == 0 {
        trigger::start(message, record, &settings)
    } else {
        retry::again(message, record, &settings)
    }
}
