//! What has been deliberated in all, cell `totals`: it learns of each deliberation by an event, so that those that end at the same time
//! don't write each other's cell.

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Malformed, Outgoing, Timestamp},
    state::{self, StateError},
};
use serde::{Deserialize, Serialize};

use crate::{WRITER, forget::Forget, malformed, settings};

const KEY: &str = "totals";
/// The order key of all that the cell learns from, and the cell's name.
const PLACE: &str = "totals";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    #[default]
    Deliberation,
    Orchestration,
    /// Of agents' answers: nobody was asked here.
    Collection,
}

/// `cofferdam.council.ended`: a deliberation is over. It arrives when that was, which the plugin's clock does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    #[serde(default = "place")]
    totals: String,
    pub(crate) task_id: String,
    pub(crate) execution_id: String,
    pub(crate) what: What,
    pub(crate) duration_ms: i64,
    /// Whether the record of the task is over with it.
    over: bool,
}

fn place() -> String {
    PLACE.into()
}

impl Ended {
    pub(crate) fn new(task_id: &str, execution_id: &str, what: What, duration_ms: i64) -> Self {
        let (task_id, execution_id) = (task_id.into(), execution_id.into());
        Self { totals: place(), task_id, execution_id, what, duration_ms, over: true }
    }

    /// One of several that share a record.
    pub(crate) fn of_several(self) -> Self {
        Self { over: false, ..self }
    }

    fn read(message: &Incoming) -> Result<Self, Malformed> {
        serde_json::from_value(message.payload().clone()).map_err(|error| Malformed {
            subject: message.subject().to_owned(),
            reason: format!("it is no end of a deliberation: {error}"),
        })
    }
}

impl Outgoing for Ended {
    const SUBJECT: &'static str = "cofferdam.council.ended";

    fn entity(&self) -> &str {
        &self.task_id
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    /// When the first of them ended.
    pub(crate) since: Option<Timestamp>,
    pub(crate) deliberations: u64,
    /// Those of them that an architect chose from.
    pub(crate) orchestrations: u64,
    pub(crate) duration_ms: u64,
}

impl Totals {
    pub(crate) fn read() -> Result<Self, StateError> {
        Ok(state::cell(PLACE).load(KEY)?.unwrap_or_default())
    }

    pub(crate) fn average_ms(&self) -> f64 {
        if self.deliberations == 0 { 0.0 } else { self.duration_ms as f64 / self.deliberations as f64 }
    }
}

/// Counts it, and has its record forgotten later.
pub(crate) fn ended(message: &Incoming) -> Result<(), Failure> {
    let ended = Ended::read(message).map_err(malformed)?;
    if ended.over {
        let forget = Forget { task_id: ended.task_id.clone(), execution_id: ended.execution_id.clone() };
        let at = message.arrival().plus_seconds(settings::kept_seconds()?);
        WRITER.schedule(at, &message.cause(), &forget, &format!("forget:{}", ended.execution_id))?;
    }
    if ended.what == What::Collection {
        return Ok(());
    }
    let mut totals = Totals::read()?;
    totals.since.get_or_insert(message.arrival());
    totals.deliberations += 1;
    totals.orchestrations += u64::from(ended.what == What::Orchestration);
    totals.duration_ms =
        totals.duration_ms.saturating_add(u64::try_from(ended.duration_ms).unwrap_or_default());
    Ok(state::cell(PLACE).save(KEY, &totals)?)
}
