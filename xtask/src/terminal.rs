//! The two streams of a terminal program: results go to stdout, everything else to stderr. Nothing else prints.

#![allow(clippy::print_stderr, reason = "under test, so that the harness captures it")]

use std::io::{IsTerminal, Write};

/// A result: what a script may want to read.
pub(crate) fn out(line: &str) {
    // A reader that closed the pipe (`| head`) wants no more: that is no fault.
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// What a person may want to read.
pub(crate) fn err(line: &str) {
    if cfg!(test) {
        // Captured by the test harness.
        return eprintln!("{line}");
    }
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// True if a person watches the progress.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
