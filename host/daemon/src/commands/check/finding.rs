//! One thing that a check found, with what to write where.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub severity: Severity,
    /// The file, or `environment`.
    pub file: String,
    pub line: Option<usize>,
    pub message: String,
    /// Below the message, one to a line.
    pub details: Vec<String>,
    /// What makes it good, if that is something to add.
    pub write: Option<Lines>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// `run` refuses to start.
    Fault,
    /// `run` warns of it and starts: a plugin asks for more than it is granted. What it does with that is denied.
    Missing,
    /// Without effect.
    Note,
}

/// Lines of one table of the config.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Lines {
    pub table: String,
    /// Where the table begins, if it is there.
    pub table_line: Option<usize>,
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    pub text: String,
    /// Where that key stands now, if it does.
    pub replaces: Option<usize>,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Fault => "fault",
            Severity::Missing => "missing grant",
            Severity::Note => "note",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}:", self.severity.name(), self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        writeln!(f, " {}", self.message)?;
        for detail in &self.details {
            writeln!(f, "  - {detail}")?;
        }
        let Some(Lines { table, table_line, lines }) = &self.write else { return Ok(()) };
        match table_line {
            Some(line) => writeln!(f, "  to allow it, write in [{table}] ({}:{line}):\n", self.file)?,
            None => writeln!(f, "  to allow it, add to {}:\n\n    [{table}]", self.file)?,
        }
        for Line { text, replaces } in lines {
            match replaces {
                Some(line) => writeln!(f, "    {text}  # in place of that in line {line}")?,
                None => writeln!(f, "    {text}")?,
            }
        }
        writeln!(f)
    }
}
