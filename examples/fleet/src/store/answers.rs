//! Answers that were given to calls with an idempotency key. They are written in the transaction that does the work,
//! so a repeated call finds either both or neither.

use rusqlite::{OptionalExtension as _, Transaction};

use super::{Error, now};

/// The stored answer to this key, if there is one. The same key for another request is the caller's mistake.
pub(crate) fn find(
    transaction: &Transaction<'_>,
    key: &str,
    method: &str,
    request: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let found: Option<(String, Vec<u8>, Vec<u8>)> = transaction
        .query_row("SELECT method, request, answer FROM answers WHERE key = ?1", [key], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    match found {
        None => Ok(None),
        Some((of_method, of_request, answer)) if of_method == method && of_request == request => {
            Ok(Some(answer))
        }
        Some((of_method, ..)) => Err(Error::Invalid(format!(
            "the idempotency key {key:?} belongs to another request (to {of_method}); use a new key for a new request"
        ))),
    }
}

pub(crate) fn put(
    transaction: &Transaction<'_>,
    key: &str,
    method: &str,
    request: &[u8],
    answer: &[u8],
) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO answers (key, method, request, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (key, method, request, answer, now()),
    )?;
    Ok(())
}
