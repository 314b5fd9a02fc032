//! How far the events of a subject were taken in. Written in the transaction that the event causes, so that a crash
//! neither loses nor repeats one.

use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::{Error, now};
use crate::bus::{Mark, Place};

pub(crate) fn get(transaction: &Transaction<'_>, subject: &str) -> Result<Option<Mark>, Error> {
    let read = |row: &Row<'_>| {
        let sequence: i64 = row.get("sequence")?;
        Ok(Mark {
            subject: row.get("subject")?,
            place: Place { stream: row.get("stream")?, sequence: sequence.unsigned_abs() },
            stored_at: row.get("stored_at")?,
        })
    };
    Ok(transaction.query_row("SELECT * FROM marks WHERE subject = ?1", [subject], read).optional()?)
}

pub(crate) fn put(transaction: &Transaction<'_>, mark: &Mark) -> Result<(), Error> {
    transaction.execute(
        "INSERT OR REPLACE INTO marks (subject, stream, sequence, stored_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            &mark.subject,
            &mark.place.stream,
            i64::try_from(mark.place.sequence).unwrap_or(i64::MAX),
            mark.stored_at,
            now(),
        ),
    )?;
    Ok(())
}
