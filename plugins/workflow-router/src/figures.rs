//! What is counted of tasks for `GetStats`: how long reviews took and how they ended, of one task and of many.

use std::{collections::BTreeMap, ops::AddAssign};

use cofferdam_sdk::fleet::Timestamp;
use serde::{Deserialize, Serialize};

use crate::machine::{Feedback, Move};

/// The roles whose time with a task is measured, by the names that `GetStats` has for them.
pub(crate) const ARCHITECT: &str = "architect";
pub(crate) const QA: &str = "qa";

/// Of one task, or of several together. As JSON a list, for boards hold many: times and seconds with the architect, the same
/// with QA, rejections, approvals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 6]", into = "[u64; 6]")]
pub(crate) struct Figures {
    pub(crate) architect: Stays,
    pub(crate) qa: Stays,
    pub(crate) rejections: u64,
    pub(crate) approvals: u64,
}

/// Times with a role that are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stays {
    pub(crate) times: u64,
    pub(crate) seconds: u64,
}

impl Stays {
    pub(crate) fn average(self) -> f64 {
        if self.times == 0 { 0.0 } else { self.seconds as f64 / self.times as f64 }
    }
}

impl Figures {
    /// A role had the task from then until then.
    pub(crate) fn stayed(&mut self, role: Option<&str>, from: Timestamp, until: Timestamp) {
        let stays = match role {
            Some(ARCHITECT) => &mut self.architect,
            Some(QA) => &mut self.qa,
            _ => return,
        };
        stays.times += 1;
        stays.seconds += until.millis_since(from) / 1_000;
    }

    /// A move whose feedback is kept rejects, one that clears it approves; another try does neither.
    pub(crate) fn moved(&mut self, row: &Move) {
        match row.feedback {
            Some(Feedback::Keep) => self.rejections += 1,
            Some(Feedback::Clear) if !row.retries => self.approvals += 1,
            Some(Feedback::Clear) | None => {}
        }
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, more: Self) {
        for (stays, more) in [(&mut self.architect, more.architect), (&mut self.qa, more.qa)] {
            stays.times += more.times;
            stays.seconds += more.seconds;
        }
        self.rejections += more.rejections;
        self.approvals += more.approvals;
    }
}

impl From<[u64; 6]> for Figures {
    fn from([times, seconds, qa_times, qa_seconds, rejections, approvals]: [u64; 6]) -> Self {
        Self {
            architect: Stays { times, seconds },
            qa: Stays { times: qa_times, seconds: qa_seconds },
            rejections,
            approvals,
        }
    }
}

impl From<Figures> for [u64; 6] {
    fn from(Figures { architect, qa, rejections, approvals }: Figures) -> Self {
        [architect.times, architect.seconds, qa.times, qa.seconds, rejections, approvals]
    }
}

/// Many tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    /// How many are in each state.
    pub(crate) states: BTreeMap<String, u32>,
    pub(crate) figures: Figures,
    /// Those that somebody has rejected or approved.
    pub(crate) reviewed: u32,
    /// Those of them that nobody has rejected.
    pub(crate) unrejected: u32,
}

impl Totals {
    pub(crate) fn add(&mut self, state: &str, figures: Figures) {
        *self.states.entry(state.to_owned()).or_default() += 1;
        self.figures += figures;
        self.reviewed += u32::from(figures.rejections + figures.approvals > 0);
        self.unrejected += u32::from(figures.rejections == 0 && figures.approvals > 0);
    }

    pub(crate) fn merge(&mut self, more: &Self) {
        for (state, count) in &more.states {
            *self.states.entry(state.clone()).or_default() += count;
        }
        self.figures += more.figures;
        self.reviewed += more.reviewed;
        self.unrejected += more.unrejected;
    }
}
