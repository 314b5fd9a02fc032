//! What is wrong with a configuration, and where. Knows nothing of what is right.

use std::{fmt, path::PathBuf};

/// One thing wrong with a file or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// `None` where there are no lines: in the environment.
    pub line: Option<usize>,
    pub message: String,
}

impl Fault {
    /// Of an environment variable, which the message names.
    pub(super) fn of_environment(message: String) -> Self {
        Self { file: PathBuf::from("environment"), line: None, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// All that is wrong, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} fault{} in the configuration:", if count == 1 { "" } else { "s" })?;
        for fault in &self.0 {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}
