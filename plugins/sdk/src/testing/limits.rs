//! The contract's limits at their defaults, and what a subject to publish to looks like.

use super::cells::Cell;
use crate::{Pairs, publish::EmitError};

pub(super) const MESSAGE: usize = 1 << 20;
pub(super) const MESSAGES_TOGETHER: usize = 8 << 20;
pub(super) const MESSAGES: usize = 1_000;
pub(super) const TIMER_ID: usize = 256;
pub(super) const CELL: usize = 512 << 10;
pub(super) const KEY: usize = 256;
pub(super) const KEYS: usize = 1_024;
pub(super) const CELL_NAME: usize = 1_024;
pub(super) const OTHER_CELLS: usize = 64;
pub(super) const OTHER_CELLS_TOGETHER: usize = 4 << 20;
pub(super) const LOG: usize = 64 << 10;
pub(super) const RANDOM: u32 = 64 << 10;
pub(super) const RPC: usize = 4 << 20;

/// Of a cell's keys and values.
pub(super) fn size(cell: &Cell) -> usize {
    cell.iter().map(|(key, value)| key.len() + value.len()).sum()
}

pub(super) fn subject(subject: &str) -> Result<(), EmitError> {
    let wrong = subject.is_empty()
        || subject.chars().any(char::is_whitespace)
        || subject.split('.').any(|token| token.is_empty() || token.contains(['*', '>']));
    if wrong { Err(EmitError::InvalidSubject(format!("{subject:?}"))) } else { Ok(()) }
}

pub(super) fn timer(id: &str) -> Result<(), EmitError> {
    let plain = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if id.len() <= TIMER_ID && id.split('.').all(plain) {
        Ok(())
    } else {
        Err(EmitError::InvalidSubject(format!("{id:?} is not the id of a timer")))
    }
}

pub(super) fn headers(headers: &Pairs) -> Result<(), EmitError> {
    let of_host = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("nats-") || name.starts_with("cofferdam-")
    };
    match headers.iter().find(|(name, _)| of_host(name)) {
        Some((name, _)) => Err(EmitError::Denied(format!("the header {name} belongs to the host"))),
        None => Ok(()),
    }
}

/// Whether `subject` is covered by `pattern` with NATS wildcards.
pub(super) fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
