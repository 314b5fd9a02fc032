//! What the streams hold: read with a plain client, piece by piece, because a stream of the fleet's contract keeps only its
//! newest messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    feed,
    mark::{Mark, Slot},
    plain::{Plain, Stored},
};

/// An event as it was fed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fed {
    pub(crate) n: u64,
    pub(crate) key: Option<String>,
    pub(crate) fate: Option<Fate>,
}

/// What is to become of an event that is not simply done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fate {
    /// Its first attempt fails.
    Retry,
    /// It is a dead letter in the end, and nothing else.
    Reject,
    /// It sets a timer as well.
    Later,
}

impl Fed {
    /// The effects that it is to have, each once.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        match self.fate {
            Some(Fate::Reject) => Vec::new(),
            Some(Fate::Later) => [&Slot::ALL[..], &[Slot::Later]].concat(),
            Some(Fate::Retry) | None => Slot::ALL.to_vec(),
        }
    }

    /// Does one run end it, as far as effects tell?
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self.fate, Some(Fate::Retry | Fate::Reject))
    }
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

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    /// The event's sequence; none for what is not an event.
    pub(crate) event: Option<u64>,
    /// It was rejected, as its fate says.
    pub(crate) as_told: bool,
    /// Its beginning.
    pub(crate) text: String,
}

/// A recorded answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) event: u64,
    pub(crate) key: String,
    /// In nanoseconds since the epoch.
    pub(crate) at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// By sequence.
    pub(crate) events: BTreeMap<u64, Fed>,
    /// Oldest first.
    pub(crate) outs: Vec<(u64, Mark, Out)>,
    /// Ends of jobs, oldest first.
    pub(crate) answers: Vec<Mark>,
    /// What was given up.
    pub(crate) dead: Vec<Dead>,
    /// Answers of `once` calls.
    pub(crate) recorded: Vec<Answer>,
    /// How much earlier than the answer came its time may be, in nanoseconds.
    pub(crate) recorded_early: u64,
    next: [u64; KINDS],
}

/// Longer than the embedded bus takes for a group.
const GROUP: u64 = 1_000_000_000;

/// Of a record of a `once` call: what it records.
const ONCE: &str = "Cofferdam-Once";

const KINDS: usize = 4;
/// The subjects of each; streams are found by them.
const READ: [&str; KINDS] =
    [feed::SUBJECTS, "cofferdam.story.soak.>", "agent.response.>", "cofferdam.dead.>"];

impl Collected {
    /// Reads what is new; tells whether there was anything.
    pub(crate) async fn refresh(&mut self, plain: &Plain) -> anyhow::Result<bool> {
        let mut any = false;
        for (at, subject) in READ.into_iter().enumerate() {
            for stored in plain.read(subject, self.next[at]).await? {
                any = true;
                if subject == "agent.response.>" {
                    let expected = self.next[at].max(1);
                    assert_eq!(stored.sequence, expected, "{subject}: discarded before it was read");
                }
                self.next[at] = stored.sequence + 1;
                self.take(at, &stored);
            }
        }
        Ok(any)
    }

    /// What hosts recorded of `once` calls; they keep it for days. That a call is about to be made is no answer.
    pub(crate) async fn refresh_recorded(&mut self, plain: &Plain) -> anyhow::Result<()> {
        self.recorded.clear();
        // The embedded bus gives a message the time at which its group began.
        self.recorded_early = if matches!(plain, Plain::Local { .. }) { GROUP } else { 0 };
        for stored in plain.read("cd.a.>", 0).await? {
            if !matches!(stored.header(ONCE), Some("answer" | "unrecordable")) {
                continue;
            }
            // cd.a.<origin>.<sequence>.<key>
            let words: Vec<&str> = stored.subject.splitn(5, '.').collect();
            let [_, _, _, sequence, key] = words[..] else { panic!("{}", stored.subject) };
            let event = sequence.parse().unwrap_or_else(|_| panic!("{}", stored.subject));
            self.recorded.push(Answer { event, key: key.to_owned(), at: stored.at });
        }
        Ok(())
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
                let event = letter["event"]["id"].as_str().and_then(|id| id.rsplit('.').next()?.parse().ok());
                let as_told = letter["reason"].as_str().is_some_and(|reason| reason.contains("as told"));
                let text = letter.to_string().chars().take(600).collect();
                self.dead.push(Dead { event, as_told, text });
            }
        }
    }

    /// Is there for each event as much as there will be if nothing is lost or repeated?
    pub(crate) fn is_complete(&self, events: u64) -> bool {
        let slots: usize = self.events.values().map(|fed| fed.slots().len()).sum();
        let rejected = self.events.values().filter(|fed| fed.fate == Some(Fate::Reject)).count();
        self.events.len() as u64 >= events
            && self.outs.len() + self.answers.len() >= slots
            && self.dead.len() >= rejected
    }
}
