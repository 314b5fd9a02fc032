//! Events that are owed to the bus. They are written in the transaction that causes them and leave in this order; who
//! sends them is in `crate::outbox`.

use rusqlite::{Row, Transaction};

use super::{Error, now};
use crate::bus::Place;

/// An event that the bus has not confirmed yet.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    pub(crate) number: i64,
    /// Names the database, too: two databases may talk to one bus, at once or after each other.
    pub(crate) message_id: String,
    pub(crate) subject: String,
    pub(crate) data: String,
    /// Set if an attempt was made, so that the message may be there already.
    pub(crate) first_sent_at: Option<String>,
}

pub(crate) fn put(
    transaction: &Transaction<'_>,
    subject: &str,
    data: &serde_json::Value,
) -> Result<(), Error> {
    // AUTOINCREMENT never gives a number twice, so the next one names the message for good.
    transaction.execute(
        "INSERT INTO outbox (message_id, subject, data, created_at)
         VALUES ((SELECT id FROM identity) || '.' ||
                 (coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) + 1), ?1, ?2, ?3)",
        (subject, data.to_string(), now()),
    )?;
    Ok(())
}

/// The next events to send, oldest first.
pub(crate) fn owed(transaction: &Transaction<'_>, most: u32) -> Result<Vec<Owed>, Error> {
    let mut query = transaction
        .prepare_cached("SELECT * FROM outbox WHERE stored_at IS NULL ORDER BY number LIMIT ?1")?;
    let rows = query.query_map([most], |row: &Row<'_>| {
        Ok(Owed {
            number: row.get("number")?,
            message_id: row.get("message_id")?,
            subject: row.get("subject")?,
            data: row.get("data")?,
            first_sent_at: row.get("first_sent_at")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// To be written before the first attempt.
pub(crate) fn sending(transaction: &Transaction<'_>, number: i64) -> Result<(), Error> {
    transaction.execute(
        "UPDATE outbox SET first_sent_at = ?2 WHERE number = ?1 AND first_sent_at IS NULL",
        (number, now()),
    )?;
    Ok(())
}

pub(crate) fn stored(transaction: &Transaction<'_>, number: i64, place: &Place) -> Result<(), Error> {
    transaction.execute(
        "UPDATE outbox SET stored_at = ?2, stream = ?3, sequence = ?4 WHERE number = ?1",
        (number, now(), &place.stream, i64::try_from(place.sequence).unwrap_or(i64::MAX)),
    )?;
    Ok(())
}
