//! The boards, cells `board/0` to `board/15`: how all tasks are, so that they are found without knowing their names. A board
//! learns of its tasks by their pictures, a moment after they have moved.

use std::collections::{BTreeMap, VecDeque};

use cofferdam_sdk::{
    Failure,
    fleet::Incoming,
    state::{self, StateError},
};
use serde::{Deserialize, Serialize};

use crate::{
    dropped,
    figures::{Figures, Totals},
    malformed,
    own::Picture,
};

const KEY: &str = "board";
const SCHEMA: u32 = 1;
/// An answer about all tasks reads every board, and looks at tasks besides; 64 cells are what one may reach.
pub(crate) const BOARDS: u64 = 16;
/// A picture that was tried again may come after the task's last one, but not after so many tasks of its board have ended.
const REMEMBERED: usize = 256;

/// Which board a task is on.
pub(crate) fn number(task_id: &str) -> u64 {
    hash(task_id) % BOARDS
}

/// FNV-1a and a finish that spreads: what is stored depends on it, so it must never change.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Board {
    schema: u32,
    /// The tasks that are not over.
    pub(crate) rows: BTreeMap<String, Row>,
    /// Those that are.
    pub(crate) over: Totals,
    /// Hashes of those that ended last, the newest at the end.
    ended: VecDeque<u64>,
}

/// A task that is not over. As JSON a list, for a cell holds 512 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Short", into = "Short")]
pub(crate) struct Row {
    pub(crate) story_id: String,
    pub(crate) state: String,
    /// When it came into its state, in unix seconds.
    pub(crate) since: i64,
    pub(crate) priority: Option<i64>,
    pub(crate) claimed: bool,
    pub(crate) commit_sha: Option<String>,
    version: u64,
    pub(crate) figures: Figures,
}

type Short = (String, String, i64, Option<i64>, bool, Option<String>, u64, Figures);

impl Board {
    /// One of them, by its number.
    fn read(number: u64) -> Result<Self, Failure> {
        Self::known(state::cell(format!("board/{number}")).load(KEY))
    }

    /// All of them.
    pub(crate) fn all() -> Result<Vec<Self>, Failure> {
        (0..BOARDS).map(Self::read).collect()
    }

    fn known(loaded: Result<Option<Self>, StateError>) -> Result<Self, Failure> {
        let board = loaded?.unwrap_or_default();
        if board.schema > SCHEMA {
            let schema = board.schema;
            return Err(Failure::retry(format!(
                "the board has schema {schema}, this version knows up to {SCHEMA}"
            )));
        }
        Ok(board)
    }

    /// Whether it tells anything new.
    fn take(&mut self, picture: Picture) -> bool {
        let known = self.rows.get(&picture.task_id).map(|row| row.version);
        let hash = hash(&picture.task_id);
        if known.is_some_and(|version| version >= picture.version) || self.ended.contains(&hash) {
            return false;
        }
        if picture.ended.is_some() {
            self.rows.remove(&picture.task_id);
            self.over.add(&picture.state, picture.figures);
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back(hash);
        } else {
            self.rows.insert(picture.task_id.clone(), picture.into());
        }
        true
    }
}

/// `cofferdam.workflow.board`: a task of this board has changed.
pub(crate) fn learn(message: &Incoming, picture: Picture) -> Result<(), Failure> {
    message.keyed_by(&picture.board.to_string()).map_err(malformed)?;
    let mut board = Board::known(state::load(KEY))?;
    if !board.take(picture) {
        return dropped("duplicate");
    }
    board.schema = SCHEMA;
    Ok(state::save(KEY, &board)?)
}

impl From<Picture> for Row {
    fn from(picture: Picture) -> Self {
        let Picture { story_id, state, since, priority, commit_sha, version, figures, .. } = picture;
        let claimed = picture.claimed_by.is_some();
        Self { story_id, state, since, priority, claimed, commit_sha, version, figures }
    }
}

impl From<Short> for Row {
    fn from((story_id, state, since, priority, claimed, commit_sha, version, figures): Short) -> Self {
        Self { story_id, state, since, priority, claimed, commit_sha, version, figures }
    }
}

impl From<Row> for Short {
    fn from(row: Row) -> Self {
        let Row { story_id, state, since, priority, claimed, commit_sha, version, figures } = row;
        (story_id, state, since, priority, claimed, commit_sha, version, figures)
    }
}
