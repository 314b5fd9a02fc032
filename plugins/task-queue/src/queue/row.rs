//! One task in the queue, and how many there are of each kind.

use std::cmp::Reverse;

use cofferdam_sdk::{Failure, metrics};
use serde::{Deserialize, Serialize};

use super::Queue;
use crate::{
    task::{Glance, Place, Status},
    texts::json_bytes,
};

/// What a row takes besides ids: brackets, commas and numbers, at their longest.
const NUMBERS: usize = 96;

/// As JSON a list, for a cell holds 512 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Short", into = "Short")]
pub(crate) struct Row {
    pub(crate) story_id: String,
    /// 1 to 10; the greatest goes first.
    pub(crate) score: u8,
    pub(crate) place: Place,
    /// Which of the task's turns this is.
    pub(crate) turn: u32,
    /// Told to go, and not over.
    pub(crate) going: bool,
    /// Dependencies that are not completed.
    pub(crate) waits_for: Vec<String>,
    /// What it was told to be behind: how many tasks, and a sum over their names.
    pub(super) blocked: (u32, u32),
}

type Short = (String, u8, Place, u32, u8, Vec<String>, (u32, u32));

impl Row {
    /// Of a task that has not gone, and whose dependencies nobody has looked at.
    pub(super) fn of(glance: &Glance) -> Self {
        Self {
            story_id: glance.story_id.clone(),
            score: glance.score,
            place: glance.place,
            turn: glance.turn,
            going: false,
            waits_for: Vec::new(),
            blocked: (0, 0),
        }
    }

    pub(super) fn goes(&mut self) {
        self.going = true;
        self.waits_for.clear();
        self.blocked = (0, 0);
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.going && self.waits_for.is_empty()
    }

    /// The least goes first.
    pub(super) fn order<'a>(&self, id: &'a str) -> (Reverse<u8>, Place, &'a str) {
        (Reverse(self.score), self.place, id)
    }

    /// Bytes as JSON, or a few more.
    pub(super) fn size(&self, id: &str) -> usize {
        let waits = self.waits_for.iter().map(|id| json_bytes(id) + 3).sum::<usize>();
        json_bytes(id) + json_bytes(&self.story_id) + waits + NUMBERS
    }
}

impl From<Short> for Row {
    fn from((story_id, score, place, turn, going, waits_for, blocked): Short) -> Self {
        Self { story_id, score, place, turn, going: going == 1, waits_for, blocked }
    }
}

impl From<Row> for Short {
    fn from(row: Row) -> Self {
        let Row { story_id, score, place, turn, going, waits_for, blocked } = row;
        (story_id, score, place, turn, u8::from(going), waits_for, blocked)
    }
}

/// `queue_depth`, as it is now.
pub(super) fn depth(queue: &Queue) -> Result<(), Failure> {
    let going = queue.rows.values().filter(|row| row.going).count();
    let waiting = queue.rows.len() - going + queue.outside as usize;
    for (status, count) in [(Status::Queued, waiting), (Status::InProgress, going)] {
        metrics::set("queue_depth", &[("status", &status.to_string())], count as f64)?;
    }
    Ok(())
}
