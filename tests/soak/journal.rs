//! The ledger's journal: one line for each call, written before the call is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// When it came.
    pub(crate) at: u64,
    pub(crate) event: u64,
    pub(crate) method: Method,
    /// The idempotency key.
    pub(crate) key: String,
    /// How often the event has run by now, or the key has come.
    pub(crate) count: u64,
    /// The daemon's own name, and how often it had been started.
    pub(crate) who: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Method {
    /// Each run makes it.
    Run,
    /// `once` by the hosts' configuration.
    Count,
}

/// What has been read of it so far.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    file: PathBuf,
    read: u64,
    /// Of each run, in the order in which they came.
    pub(crate) runs: Vec<Call>,
    /// Those that are to be made once.
    pub(crate) once: Vec<Call>,
    events: BTreeSet<u64>,
}

impl Journal {
    pub(crate) fn of(file: &Path) -> Journal {
        Journal { file: file.to_owned(), ..Journal::default() }
    }

    /// Reads what is new. A line that was cut off by the end of its writer was never answered.
    pub(crate) fn refresh(&mut self) {
        let Ok(mut file) = File::open(&self.file) else { return };
        file.seek(SeekFrom::Start(self.read)).expect("a file");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("a readable journal");
        let Some(end) = text.iter().rposition(|b| *b == b'\n') else { return };
        self.read += end as u64 + 1;
        for line in text[..end].split(|b| *b == b'\n') {
            if let Ok(call) = serde_json::from_slice::<Call>(line) {
                match call.method {
                    Method::Run => {
                        self.events.insert(call.event);
                        self.runs.push(call);
                    }
                    Method::Count => self.once.push(call),
                }
            }
        }
    }

    /// How many calls have come.
    pub(crate) fn calls(&self) -> usize {
        self.runs.len() + self.once.len()
    }

    /// How many events have begun.
    pub(crate) fn events(&self) -> u64 {
        self.events.len() as u64
    }
}

/// The calls of each event, in order.
pub(crate) fn by_event(calls: &[Call]) -> BTreeMap<u64, Vec<&Call>> {
    let mut all: BTreeMap<u64, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        all.entry(call.event).or_default().push(call);
    }
    all
}
