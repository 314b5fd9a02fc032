//! The endpoint's journal, read as it grows: who has asked for what, and what is still open.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// In nanoseconds since the epoch.
    pub(crate) at: u64,
    pub(crate) job: u64,
    /// The worker's own name, and how often it had been started.
    pub(crate) who: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    Asked,
    Answered,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    file: PathBuf,
    read: u64,
    /// When each job was asked for, and by whom, in order.
    pub(crate) asked: BTreeMap<u64, Vec<(u64, String)>>,
    open: HashMap<String, BTreeSet<u64>>,
}

impl Journal {
    pub(crate) fn of(file: &Path) -> Journal {
        Journal { file: file.to_owned(), ..Journal::default() }
    }

    /// Reads what is new, as far as it is whole.
    pub(crate) fn refresh(&mut self) {
        let Ok(mut file) = File::open(&self.file) else { return };
        file.seek(SeekFrom::Start(self.read)).expect("a file");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("a readable journal");
        let Some(end) = text.iter().rposition(|b| *b == b'\n') else { return };
        self.read += end as u64 + 1;
        for line in text[..end].split(|b| *b == b'\n') {
            self.take(serde_json::from_slice(line).expect("a line of the journal"));
        }
    }

    pub(crate) fn take(&mut self, Line { at, job, who, what }: Line) {
        let open = self.open.entry(who.clone()).or_default();
        match what {
            What::Asked => {
                open.insert(job);
                self.asked.entry(job).or_default().push((at, who));
            }
            What::Answered => {
                open.remove(&job);
            }
        }
    }

    /// Requests of a worker that are not answered yet.
    pub(crate) fn open(&self, who: &str) -> u64 {
        self.open.get(who).map_or(0, BTreeSet::len) as u64
    }

    pub(crate) fn requests(&self) -> u64 {
        self.asked.values().map(|asked| asked.len() as u64).sum()
    }
}
