//! `UpdateContext`: what it takes, and what it makes of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet_proto::context::v1::{ContextChange, UpdateContextRequest, UpdateContextResponse};
use rusqlite::Transaction;

use crate::{
    roles,
    store::{
        Error,
        knowledge::{self, Change, Fields, Operation},
        plans,
    },
};

/// Takes all changes or none.
pub(super) fn update(
    transaction: &Transaction<'_>,
    request: UpdateContextRequest,
) -> Result<UpdateContextResponse, Error> {
    let story_id = request.story_id.trim();
    if story_id.is_empty() {
        return Err(Error::Invalid("story_id is empty; name the story".to_owned()));
    }
    let mut odd = Vec::new();
    let made_at = time(&request.timestamp).unwrap_or_else(|| {
        if !request.timestamp.is_empty() {
            odd.push(format!("{:?} is no time in RFC 3339 and UTC; taken for now", request.timestamp));
        }
        SystemTime::now()
    });
    if matches!(plans::story(transaction, story_id), Err(Error::Unknown { .. })) {
        odd.push(format!("Planning does not know the story {story_id:?}; kept all the same"));
    }
    let changes: Vec<Change> =
        request.changes.into_iter().map(|asked| change(asked, made_at)).collect::<Result<_, _>>()?;
    let count = changes.len();
    let by = (request.task_id.as_str(), roles::canonical(&request.role));
    let (snapshot, warnings) = knowledge::update(transaction, story_id, (by.0, &by.1), changes)?;
    odd.extend(warnings);
    tracing::info!(story_id, changes = count, version = snapshot.version, warnings = ?odd, "context updated");
    Ok(UpdateContextResponse { version: snapshot.version, hash: snapshot.hash, warnings: odd })
}

fn change(asked: ContextChange, made_at: SystemTime) -> Result<Change, Error> {
    let entity_type = asked.entity_type.trim().to_ascii_uppercase();
    let entity_id = asked.entity_id.trim().to_owned();
    let invalid = |what: String| Error::Invalid(format!("the change of {entity_type} {entity_id:?}: {what}"));
    let Some(operation) = Operation::parse(&asked.operation) else {
        return Err(invalid(format!("{:?} is none of CREATE, UPDATE, DELETE", asked.operation)));
    };
    if entity_type.is_empty() || entity_id.is_empty() {
        return Err(invalid("it needs an entity_type and an entity_id".to_owned()));
    }
    let fields: Fields = match asked.payload.trim() {
        "" => Fields::new(),
        json => serde_json::from_str(json)
            .map_err(|error| invalid(format!("its payload is no JSON object: {error}")))?,
    };
    let since = made_at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let made_at = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Ok(Change { operation, entity_type, entity_id, fields, reason: asked.reason, made_at })
}

fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text.trim()).ok()
}
