//! What the streams hold: read with a plain client, piece by piece, because a stream of the fleet's contract keeps only its
//! newest messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    feed,
    mark::Mark,
    plain::{Plain, Stored},
};

/// An event as it was fed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fed {
    pub(crate) n: u64,
    pub(crate) key: Option<String>,
}

/// A message that the guest published.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Out {
    pub(crate) mark: String,
    pub(crate) attempt: u32,
    /// Of events with a key: how many the cell has counted with this one, and which was the last before it.
    pub(crate) count: Option<u64>,
    pub(crate) before: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// By sequence.
    pub(crate) events: BTreeMap<u64, Fed>,
    /// Oldest first.
    pub(crate) outs: Vec<(u64, Mark, Out)>,
    /// Ends of jobs, oldest first.
    pub(crate) answers: Vec<Mark>,
    /// Why something was given up.
    pub(crate) dead: Vec<String>,
    next: [u64; 4],
}

/// Stream and subject of each.
const READ: [(&str, &str); 4] = [
    (feed::STREAM, feed::SUBJECTS),
    ("COFFERDAM_EVENTS", "cofferdam.soak.out.>"),
    ("AGENT_RESPONSES", "agent.response.>"),
    ("COFFERDAM_EVENTS", "cofferdam.dead.>"),
];

impl Collected {
    /// Reads what is new; tells whether there was anything.
    pub(crate) async fn refresh(&mut self, plain: &Plain) -> anyhow::Result<bool> {
        let mut any = false;
        for (at, (stream, subject)) in READ.into_iter().enumerate() {
            for stored in plain.read(stream, subject, self.next[at]).await? {
                any = true;
                if subject == "agent.response.>" {
                    let expected = self.next[at].max(1);
                    assert_eq!(stored.sequence, expected, "{stream} discarded answers before they were read");
                }
                self.next[at] = stored.sequence + 1;
                self.take(at, &stored);
            }
        }
        Ok(any)
    }

    fn take(&mut self, kind: usize, stored: &Stored) {
        let text = || String::from_utf8_lossy(&stored.data).into_owned();
        match kind {
            0 => {
                let fed = serde_json::from_slice(&stored.data).unwrap_or_else(|e| panic!("{e}: {}", text()));
                self.events.insert(stored.sequence, fed);
            }
            1 => {
                let out: Out =
                    serde_json::from_slice(&stored.data).unwrap_or_else(|e| panic!("{e}: {}", text()));
                let mark = Mark::parse(&out.mark).unwrap_or_else(|| panic!("{}", text()));
                self.outs.push((stored.sequence, mark, out));
            }
            2 if stored.subject == "agent.response.completed" => {
                let mark = Mark::find(&stored.data, "task_id").unwrap_or_else(|| panic!("{}", text()));
                self.answers.push(mark);
            }
            _ => {
                let letter: Value = serde_json::from_slice(&stored.data).unwrap_or_default();
                let why = letter.to_string().chars().take(600).collect();
                self.dead.push(why);
            }
        }
    }

    /// Is there for each event as much as there will be if nothing is lost or repeated?
    pub(crate) fn is_complete(&self, events: u64) -> bool {
        let events = usize::try_from(events).expect("a number of events");
        self.events.len() >= events
            && self.outs.len() >= 2 * self.events.len()
            && self.answers.len() >= self.events.len()
    }
}
