//! Reads what another process appends to a file, line by line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file that grows. Lines are handed out once they are complete.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: File,
    rest: Vec<u8>,
    ready: VecDeque<String>,
}

impl Tail {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), file, rest: Vec::new(), ready: VecDeque::new() })
    }

    /// The next line, if there is one yet.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        self.read()?;
        Ok(self.ready.pop_front())
    }

    /// All lines that came since the last look.
    pub(super) fn lines(&mut self) -> Result<Vec<String>> {
        self.read()?;
        Ok(self.ready.drain(..).collect())
    }

    fn read(&mut self) -> Result<()> {
        self.file
            .read_to_end(&mut self.rest)
            .with_context(|| format!("can't read {}", self.path.display()))?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.drain(..=end).collect::<Vec<_>>();
            self.ready.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        Ok(())
    }
}

/// The last lines of a file; none if it can't be read.
pub(super) fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().collect::<Vec<_>>();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_comes_once_it_is_complete() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::open(file.path()).unwrap();
        assert_eq!(tail.line().unwrap(), None);
        write!(file, "one\ntw").unwrap();
        assert_eq!(tail.line().unwrap().as_deref(), Some("one"));
        assert_eq!(tail.line().unwrap(), None);
        write!(file, "o\nthree\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["two", "three"]);
        assert_eq!(last_lines(file.path(), 2), ["two", "three"]);
    }
}
