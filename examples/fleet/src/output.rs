//! Standard output: results for people and programs. Logs go to standard error.

use std::io::{self, Write as _};

use serde_json::Value;

/// One line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// One line of JSON.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    line(&value.to_string())
}
