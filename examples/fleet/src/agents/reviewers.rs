//! The architect, who looks at designs, and QA, who runs tests.

use rusqlite::Transaction;

use super::{Cause, Manner, Refusal, looks, pieces::Piece, work};

pub(super) fn design(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    let fault = looks::finds_fault(transaction, task_id, "architect", manner.architect_rejects)?;
    let piece = if fault { Piece::RejectDesign } else { Piece::ApproveDesign };
    Ok(work::begin(transaction, manner, task_id, piece, cause)?)
}

pub(super) fn tests(
    transaction: &Transaction<'_>,
    manner: &Manner,
    task_id: &str,
    cause: &Cause,
) -> Result<(), Refusal> {
    let fault = looks::finds_fault(transaction, task_id, "qa", manner.qa_rejects)?;
    let piece = if fault { Piece::RejectTests } else { Piece::ApproveTests };
    Ok(work::begin(transaction, manner, task_id, piece, cause)?)
}
