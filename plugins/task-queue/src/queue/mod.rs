//! The queue's aggregate, the cell `queue/main`: who waits for what, and who has gone. It decides whose turn it is; what becomes of
//! a task is the task's own affair, and the queue goes by what it finds there.

mod behind;
mod row;

use std::{cmp::Reverse, collections::BTreeMap};

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Malformed, Outgoing, Timestamp},
    info, state, warn,
};
use serde::{Deserialize, Serialize};

use crate::{
    WRITER, malformed,
    own::{Changed, Go},
    settings,
    task::{Glance, Status},
    texts::{cut, json_bytes},
};
pub(crate) use behind::Behind;
pub(crate) use row::Row;

/// There is one.
pub(crate) const MAIN: &str = "main";
const KEY: &str = "queue";
const SCHEMA: u32 = 1;
/// A cell holds 512 KiB. The last of it is for tasks that are ready, without which those that wait for them would wait for ever.
const FULL: usize = 440 << 10;
const FULL_FOR_THE_BLOCKED: usize = 360 << 10;
/// A full queue is asked again after so many seconds, and later if many ask.
const ASK_AGAIN: u64 = 30;
const ASKING_PER_SECOND: u32 = 20;
/// One event may publish 1,000 messages of 960 KiB together, the cell's among them.
const GOING_AT_ONCE: usize = 100;
const ERROR: usize = 256;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Queue {
    schema: u32,
    /// The tasks that wait, and those that have gone and are not over.
    pub(crate) rows: BTreeMap<String, Row>,
    /// Tasks that failed, by what, as far as others wait for them.
    failed: BTreeMap<String, String>,
    /// How many found it full, and will ask again.
    pub(crate) outside: u32,
    /// Counts what it told, for the keys of its messages.
    told: u64,
    /// There was more to tell than one event may.
    more: bool,
}

/// `cofferdam.queue.changed`: one of its tasks is not as it was.
pub(crate) fn changed(message: &Incoming, changed: &Changed) -> Result<(), Failure> {
    message.keyed_by(&changed.queue).map_err(malformed)?;
    if changed.queue != MAIN {
        let reason = format!("there is no queue {:?}, only {MAIN:?}", changed.queue);
        return Err(malformed(Malformed { subject: Changed::SUBJECT.into(), reason }));
    }
    let mut queue = Queue::known(state::load(KEY)?)?;
    let before = queue.clone();
    if changed.turned_away > 0 {
        queue.outside = queue.outside.saturating_sub(1);
    }
    let glance = Glance::at(&changed.task_id)?;
    queue.take(message, changed, glance)?;
    queue.forget();
    let mut more = queue.let_go(message)?;
    more |= queue.tell_blocked(message, before.waits_differ(&queue))?;
    if more {
        queue.told += 1;
        let again = Changed { turned_away: 0, ..changed.clone() };
        WRITER.emit(&message.cause(), &again, &format!("more:{}", queue.told))?;
    }
    queue.more = more;
    row::depth(&queue)?;
    if queue == before {
        return Ok(());
    }
    queue.schema = SCHEMA;
    Ok(state::save(KEY, &queue)?)
}

impl Queue {
    /// For who only looks.
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::known(state::cell(format!("queue/{MAIN}")).load(KEY)?)
    }

    fn known(queue: Option<Self>) -> Result<Self, Failure> {
        let queue = queue.unwrap_or_default();
        if queue.schema > SCHEMA {
            // An older version hands back what it can't read.
            let schema = queue.schema;
            return Err(Failure::retry(format!(
                "the queue has schema {schema}, this version knows up to {SCHEMA}"
            )));
        }
        Ok(queue)
    }

    /// Takes over how a task is now.
    fn take(&mut self, message: &Incoming, changed: &Changed, glance: Option<Glance>) -> Result<(), Failure> {
        let id = changed.task_id.as_str();
        let Some(glance) = glance else {
            self.rows.remove(id);
            return Ok(());
        };
        if !matches!(glance.status, Status::Failed(_)) {
            self.failed.remove(id);
        }
        match &glance.status {
            Status::Expected => {}
            // It waits, or is told to go just now.
            Status::Queued if self.rows.get(id).is_some_and(|row| row.turn == glance.turn) => {}
            Status::Queued => self.admit(message, changed, &glance)?,
            Status::InProgress => {
                let row = self.rows.entry(id.to_owned()).or_insert_with(|| Row::of(&glance));
                row.turn = glance.turn;
                row.goes();
            }
            Status::Completed | Status::Cancelled => {
                self.rows.remove(id);
                for row in self.rows.values_mut() {
                    row.waits_for.retain(|other| other != id);
                }
            }
            Status::Failed(error) => {
                self.rows.remove(id);
                self.failed.insert(id.to_owned(), cut(error, ERROR));
            }
        }
        Ok(())
    }

    /// A task that waits from now on, if there is room.
    fn admit(&mut self, message: &Incoming, changed: &Changed, glance: &Glance) -> Result<(), Failure> {
        let id = changed.task_id.as_str();
        let mut row = Row::of(glance);
        let mut failed = Vec::new();
        for other in &glance.depends_on {
            match Glance::at(other)?.map(|glance| glance.status) {
                Some(Status::Completed | Status::Cancelled) => continue,
                Some(Status::Failed(error)) => failed.push((other.clone(), cut(&error, ERROR))),
                _ => {}
            }
            row.waits_for.push(other.clone());
        }
        let full = if row.waits_for.is_empty() { FULL } else { FULL_FOR_THE_BLOCKED };
        self.rows.remove(id);
        if self.size() + row.size(id) > full {
            return self.turn_away(message, changed);
        }
        self.failed.extend(failed);
        self.rows.insert(id.to_owned(), row);
        Ok(())
    }

    /// There is no room: the task stays as it is, and asks again.
    fn turn_away(&mut self, message: &Incoming, changed: &Changed) -> Result<(), Failure> {
        self.outside = self.outside.saturating_add(1);
        let seconds = ASK_AGAIN + u64::from(self.outside / ASKING_PER_SECOND);
        let again = Changed { turned_away: changed.turned_away.saturating_add(1), ..changed.clone() };
        let at = Timestamp::now().plus_seconds(seconds);
        self.told += 1;
        WRITER.schedule(at, &message.cause(), &again, &format!("again:{}", self.told))?;
        warn!("the queue is full, so the task waits outside and asks again in {seconds} s";
            task_id = changed.task_id, story_id = changed.story_id, tasks = self.rows.len(),
            bytes = self.size(), outside = self.outside);
        Ok(())
    }

    /// Bytes as JSON, or a few more.
    fn size(&self) -> usize {
        let rows = self.rows.iter().map(|(id, row)| row.size(id)).sum::<usize>();
        let failed =
            self.failed.iter().map(|(id, error)| json_bytes(id) + json_bytes(error) + 8).sum::<usize>();
        rows + failed
    }

    /// What nobody waits for any more.
    fn forget(&mut self) {
        let rows = &self.rows;
        self.failed.retain(|id, _| rows.values().any(|row| row.waits_for.contains(id)));
    }

    /// Tells the first of those that are ready to go, as many as may. Whether there are more.
    fn let_go(&mut self, message: &Incoming) -> Result<bool, Failure> {
        let going = self.rows.values().filter(|row| row.going).count();
        let room = settings::max_in_progress()?.map_or(usize::MAX, |most| most.saturating_sub(going));
        let mut ready: Vec<(&String, &mut Row)> =
            self.rows.iter_mut().filter(|(_, row)| row.is_ready()).collect();
        ready.sort_by(|(id, row), (other_id, other)| row.order(id).cmp(&other.order(other_id)));
        let more = room.min(ready.len()) > GOING_AT_ONCE;
        for (id, row) in ready.into_iter().take(room.min(GOING_AT_ONCE)) {
            let go = Go { task_id: id.clone(), story_id: row.story_id.clone(), turn: row.turn };
            WRITER.emit(&message.cause(), &go, &format!("go:{}", row.turn))?;
            info!("its turn has come"; task_id = id, story_id = row.story_id, score = row.score);
            row.goes();
        }
        Ok(more)
    }

    /// All tasks: those that have gone first, then in the order in which they are to go.
    pub(crate) fn in_order(&self) -> Vec<(&String, &Row)> {
        let mut all: Vec<_> = self.rows.iter().collect();
        all.sort_by(|(id, row), (other_id, other)| {
            (Reverse(row.going), row.order(id)).cmp(&(Reverse(other.going), other.order(other_id)))
        });
        all
    }
}
