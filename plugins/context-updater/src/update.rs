//! One update: Context is told, then the fleet is. Both once for each message, whatever crashes: the call has one idempotency key
//! in all runs of the event, since its request follows from the message alone; the event and the memory commit together.

use std::collections::BTreeSet;

use cofferdam_sdk::{
    Failure,
    fleet::{ContextUpdated, Incoming, Seen, Snapshot, Timestamp},
    info, metrics, state, warn,
};
use fleet_proto::context::v1::{ContextChange, UpdateContextRequest};
use serde::{Deserialize, Serialize};

use crate::{WRITER, context, dropped, malformed, settings};

const KEY: &str = "told";
const SCHEMA: u32 = 1;

/// What a message changes in the context of a story.
pub(crate) struct Update {
    /// The label of the metric.
    pub(crate) kind: &'static str,
    pub(crate) story_id: String,
    /// Empty if it concerns no single task.
    pub(crate) task_id: String,
    pub(crate) role: String,
    /// At least one.
    pub(crate) changes: Vec<ContextChange>,
}

/// What Context has been told of a story.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    schema: u32,
    seen: Seen,
}

impl Told {
    fn load() -> Result<Self, Failure> {
        let told: Self = state::load(KEY)?.unwrap_or_default();
        if told.schema > SCHEMA {
            // An older version hands back what it can't read.
            let schema = told.schema;
            return Err(Failure::retry(format!(
                "the story's memory has schema {schema}, this version knows up to {SCHEMA}"
            )));
        }
        Ok(told)
    }

    fn save(mut self) -> Result<(), Failure> {
        self.schema = SCHEMA;
        Ok(state::save(KEY, &self)?)
    }
}

/// Tells Context and the fleet, unless this message has been told.
pub(crate) fn tell(message: &Incoming, update: Update) -> Result<(), Failure> {
    message.keyed_by(&update.story_id).map_err(malformed)?;
    let mut told = Told::load()?;
    if !told.seen.first_time(message) {
        return dropped("duplicate");
    }
    let mut known = BTreeSet::new();
    let ids = update.changes.iter().map(|change| change.entity_id.clone());
    let changed: Vec<String> = ids.filter(|id| known.insert(id.clone())).collect();
    let Update { kind, story_id, task_id, role, changes } = update;
    let request = UpdateContextRequest {
        story_id: story_id.clone(),
        task_id: task_id.clone(),
        role,
        changes,
        // By the bus's clock, which is one for all that concerns a story, and the same in every run.
        timestamp: message.arrival().to_string(),
    };
    let answer = context::update(&request)?;
    for warning in &answer.warnings {
        warn!("Context took it with a warning: {warning}"; story_id = story_id, task_id = task_id);
    }
    let snapshot = Snapshot { version: answer.version, hash: answer.hash };
    info!("Context is told"; story_id = story_id, task_id = task_id, version = snapshot.version, changed = changed.join(" "));
    if settings::publishes_updates()? {
        let updated = ContextUpdated { story_id, task_id, changed, snapshot, timestamp: Timestamp::now() };
        WRITER.emit(&message.cause(), &updated, &format!("updated:{}", message.digest()))?;
    }
    metrics::count("context_updates", &[("kind", kind)])?;
    told.save()
}
