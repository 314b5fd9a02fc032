//! What Context was told of stories: every change in the order in which it came, never altered. How things are follows from the
//! changes in the order in which they were made, so that one which comes late falls into its place.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, Row, Transaction};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Error, now};
use crate::events::hex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Replaces what was there.
    Create,
    /// Its fields count, the others stay.
    Update,
    Delete,
}

impl Operation {
    const ALL: [Operation; 3] = [Operation::Create, Operation::Update, Operation::Delete];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Operation> {
        Operation::ALL.into_iter().find(|operation| operation.name().eq_ignore_ascii_case(name.trim()))
    }
}

pub(crate) type Fields = BTreeMap<String, Value>;

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) operation: Operation,
    /// In upper case: `DECISION`.
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) fields: Fields,
    pub(crate) reason: String,
    /// When it was made, by whoever made it: microseconds since the epoch.
    pub(crate) made_at: i64,
}

/// What a story's context has in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) fields: Fields,
}

/// Which state of a story's context it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Counts up with each update that changed something; 0: nothing yet.
    pub(crate) version: i32,
    /// Of all that the context has in it: equal contents, equal hashes.
    pub(crate) hash: String,
}

/// Takes all of an update. Gives what is the case then, and what is odd about it.
pub(crate) fn update(
    transaction: &Transaction<'_>,
    story_id: &str,
    (task_id, role): (&str, &str),
    changes: Vec<Change>,
) -> Result<(Snapshot, Vec<String>), Error> {
    let before = snapshot(transaction, story_id)?;
    let mut known = read(transaction, story_id)?;
    let (mut warnings, first) = (Vec::new(), entities(&known));
    for change in changes {
        let of = format!("{} {}", change.entity_type, change.entity_id);
        let (had, operation) = (entities(&known), change.operation);
        insert(transaction, story_id, (task_id, role), &change)?;
        known.push(change);
        let has = entities(&known);
        if had == has {
            warnings.push(format!("{of}: {} changes nothing", operation.name()));
        } else if operation == Operation::Update && has.len() > had.len() {
            warnings.push(format!("{of}: UPDATE of what was not known; it is now"));
        }
    }
    let has = entities(&known);
    if has == first {
        return Ok((before, warnings));
    }
    let after = Snapshot { version: before.version + 1, hash: hash(&has) };
    transaction.execute(
        "INSERT INTO contexts (story_id, version, hash, updated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (story_id) DO UPDATE SET version = ?2, hash = ?3, updated_at = ?4",
        (story_id, after.version, &after.hash, now()),
    )?;
    Ok((after, warnings))
}

pub(crate) fn snapshot(transaction: &Transaction<'_>, story_id: &str) -> Result<Snapshot, Error> {
    let read = |row: &Row<'_>| Ok(Snapshot { version: row.get(0)?, hash: row.get(1)? });
    let found = transaction
        .query_row("SELECT version, hash FROM contexts WHERE story_id = ?1", [story_id], read)
        .optional()?;
    Ok(found.unwrap_or_else(|| Snapshot { version: 0, hash: hash(&[]) }))
}

/// What a story's context has in it, in the order in which it was made.
pub(crate) fn list(transaction: &Transaction<'_>, story_id: &str) -> Result<Vec<Entity>, Error> {
    Ok(entities(&read(transaction, story_id)?))
}

fn insert(
    transaction: &Transaction<'_>,
    story_id: &str,
    (task_id, role): (&str, &str),
    change: &Change,
) -> Result<(), Error> {
    let fields = serde_json::to_string(&change.fields).map_err(|error| Error::Damaged(error.to_string()))?;
    transaction.execute(
        "INSERT INTO changes (story_id, task_id, role, operation, entity_type, entity_id, fields, reason, made_at, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        (
            story_id,
            task_id,
            role,
            change.operation.name(),
            &change.entity_type,
            &change.entity_id,
            fields,
            &change.reason,
            change.made_at,
            now(),
        ),
    )?;
    Ok(())
}

/// In the order in which they came.
fn read(transaction: &Transaction<'_>, story_id: &str) -> Result<Vec<Change>, Error> {
    let mut query =
        transaction.prepare_cached("SELECT * FROM changes WHERE story_id = ?1 ORDER BY number")?;
    let mut rows = query.query([story_id])?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next()? {
        let (operation, fields): (String, String) = (row.get("operation")?, row.get("fields")?);
        changes.push(Change {
            operation: Operation::parse(&operation)
                .ok_or_else(|| Error::Damaged(format!("a change that is {operation:?}")))?,
            entity_type: row.get("entity_type")?,
            entity_id: row.get("entity_id")?,
            fields: serde_json::from_str(&fields).map_err(|error| Error::Damaged(error.to_string()))?,
            reason: row.get("reason")?,
            made_at: row.get("made_at")?,
        });
    }
    Ok(changes)
}

/// What comes of changes. Those of one moment count in the order in which they came.
fn entities(changes: &[Change]) -> Vec<Entity> {
    /// What one was created with last, and what it is now.
    #[derive(Default)]
    struct Known<'a> {
        created: Option<&'a Fields>,
        fields: Option<Fields>,
    }
    let mut in_time: Vec<&Change> = changes.iter().collect();
    in_time.sort_by_key(|change| change.made_at);
    let mut known: Vec<Known<'_>> = Vec::new();
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for change in in_time {
        let place = *places.entry((&change.entity_type, &change.entity_id)).or_insert(known.len());
        if place == known.len() {
            known.push(Known::default());
        }
        let Some(entity) = known.get_mut(place) else { continue };
        match change.operation {
            // Told again it takes nothing back that was said to it meanwhile.
            Operation::Create if entity.fields.is_some() && entity.created == Some(&change.fields) => {}
            Operation::Create => {
                *entity = Known { created: Some(&change.fields), fields: Some(change.fields.clone()) };
            }
            Operation::Update => {
                entity.fields.get_or_insert_default().extend(change.fields.clone());
            }
            Operation::Delete => *entity = Known::default(),
        }
    }
    let mut in_order: Vec<_> = places.into_iter().collect();
    in_order.sort_by_key(|(_, place)| *place);
    in_order
        .into_iter()
        .zip(known)
        .filter_map(|(((entity_type, entity_id), _), known)| {
            let (entity_type, entity_id) = (entity_type.to_owned(), entity_id.to_owned());
            Some(Entity { entity_type, entity_id, fields: known.fields? })
        })
        .collect()
}

fn hash(entities: &[Entity]) -> String {
    let mut lines: Vec<String> = entities
        .iter()
        .map(|entity| {
            let fields: Value = entity.fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            serde_json::json!([entity.entity_type, entity.entity_id, fields]).to_string()
        })
        .collect();
    // The order in which things came is no part of what they are.
    lines.sort();
    hex(&Sha256::digest(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(operation: Operation, id: &str, made_at: i64, fields: Value) -> Change {
        Change {
            operation,
            entity_type: "DECISION".to_owned(),
            entity_id: id.to_owned(),
            fields: serde_json::from_value(fields).unwrap(),
            reason: String::new(),
            made_at,
        }
    }

    fn told(changes: &[Change]) -> Vec<(String, Value)> {
        let all = entities(changes).into_iter();
        all.map(|entity| (entity.entity_id, serde_json::to_value(entity.fields).unwrap())).collect()
    }

    #[test]
    fn what_things_are_follows_from_when_the_changes_were_made_and_not_from_when_they_came() {
        use Operation::{Create, Delete, Update};
        let changes = [
            change(Create, "D", 1, json!({"rationale": "old", "status": "proposed", "winner": "a"})),
            change(Update, "D", 2, json!({"status": "rejected"})),
            change(Create, "D", 3, json!({"rationale": "new", "status": "proposed"})),
            change(Update, "D", 4, json!({"status": "approved", "approved_by": "ann"})),
            change(Create, "E", 4, json!({"rationale": "wrong"})),
            change(Delete, "E", 5, json!({})),
        ];
        let expected =
            [("D".to_owned(), json!({"rationale": "new", "status": "approved", "approved_by": "ann"}))];
        let mut order: Vec<usize> = (0..changes.len()).collect();
        // Each cyclic order, forwards and backwards.
        for _ in 0..2 {
            for _ in 0..changes.len() {
                let came: Vec<Change> = order.iter().map(|at| changes[*at].clone()).collect();
                assert_eq!(told(&came), expected, "{order:?}");
                assert_eq!(hash(&entities(&came)), hash(&entities(&changes)));
                order.rotate_left(1);
            }
            order.reverse();
        }
    }

    #[test]
    fn what_is_created_again_as_it_was_takes_back_nothing_that_was_said_to_it() {
        use Operation::{Create, Delete, Update};
        let created = |at| change(Create, "D", at, json!({"status": "proposed"}));
        let mut changes = vec![created(1), change(Update, "D", 2, json!({"status": "approved"})), created(3)];
        assert_eq!(told(&changes), [("D".to_owned(), json!({"status": "approved"}))]);
        changes.push(change(Create, "D", 4, json!({"status": "proposed", "rationale": "another"})));
        assert_eq!(told(&changes)[0].1["status"], "proposed");
        changes.extend([change(Delete, "D", 5, json!({})), created(6)]);
        assert_eq!(told(&changes), [("D".to_owned(), json!({"status": "proposed"}))]);
    }

    #[test]
    fn equal_contents_have_equal_hashes() {
        let one = change(Operation::Create, "D", 1, json!({"a": 1, "b": 2}));
        let two = change(Operation::Create, "E", 2, json!({}));
        let of = |changes: &[&Change]| {
            hash(&entities(&changes.iter().map(|change| (*change).clone()).collect::<Vec<_>>()))
        };
        assert_eq!(of(&[&one, &two]), of(&[&two, &one]));
        assert_ne!(of(&[&one, &two]), of(&[&one]));
        let later = Change { made_at: 9, ..one.clone() };
        assert_eq!(of(&[&one, &two]), of(&[&later, &two]));
    }
}
