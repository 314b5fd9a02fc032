//! Who can't go as things are: tasks behind one that failed, and tasks that wait for each other. They keep their places, and are
//! told of once for each task that they come to be behind.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::{
    Failure,
    fleet::{Incoming, Timestamp},
};

use super::{Queue, row::Row};
use crate::own::Blocked;

/// One event tells of no more.
const TOLD_AT_ONCE: usize = 50;
/// A message names no more.
const NAMED: usize = 16;

/// For each task that can't go, by number, what it is behind.
pub(crate) struct Behind<'a> {
    queue: &'a Queue,
    /// What they are behind: a task that failed, or a circle of tasks.
    roots: Vec<Root<'a>>,
    /// By task.
    blocked: BTreeMap<&'a str, Vec<usize>>,
}

enum Root<'a> {
    Failed(&'a str),
    /// Each waits for the next, and the last for the first.
    Circle(Vec<&'a str>),
}

impl<'a> Behind<'a> {
    pub(crate) fn of(queue: &'a Queue) -> Self {
        let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, row) in &queue.rows {
            for other in &row.waits_for {
                dependents.entry(other).or_default().push(id);
            }
        }
        let failed = queue.failed.keys().map(|id| Root::Failed(id));
        let circles = circles(queue, &dependents).into_iter().map(Root::Circle);
        let roots: Vec<Root<'a>> = failed.chain(circles).collect();
        let mut blocked: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, root) in roots.iter().enumerate() {
            let mut reached: BTreeSet<&str> = BTreeSet::new();
            let mut ahead: Vec<&str> = match root {
                Root::Failed(id) => vec![id],
                Root::Circle(members) => members.clone(),
            };
            while let Some(id) = ahead.pop() {
                for dependent in dependents.get(id).into_iter().flatten() {
                    if reached.insert(dependent) {
                        ahead.push(dependent);
                    }
                }
            }
            reached.into_iter().for_each(|id| blocked.entry(id).or_default().push(number));
        }
        Self { queue, roots, blocked }
    }

    /// Those that a task waits for, and that failed or can't go themselves.
    pub(crate) fn blocking(&self, row: &Row) -> Vec<String> {
        let blocks = |id: &&String| {
            self.queue.failed.contains_key(id.as_str()) || self.blocked.contains_key(id.as_str())
        };
        row.waits_for.iter().filter(blocks).cloned().collect()
    }

    /// How many roots, and a sum over their names, whatever their order.
    fn sum(&self, roots: &[usize]) -> (u32, u32) {
        let name = |number: &usize| match &self.roots[*number] {
            Root::Failed(id) => hash(id),
            Root::Circle(members) => members.iter().fold(1, |sum, id| sum ^ hash(id)),
        };
        let count = u32::try_from(roots.len()).unwrap_or(u32::MAX);
        (count, roots.iter().map(name).fold(0, u32::wrapping_add))
    }

    /// What a task that is behind these is told to be behind, and why.
    fn told(&self, roots: &[usize]) -> (Vec<String>, String) {
        let (mut behind, mut errors) = (Vec::new(), Vec::new());
        for root in roots.iter().map(|number| &self.roots[*number]) {
            match root {
                Root::Failed(id) => {
                    behind.push((*id).to_owned());
                    errors.push(format!("{id} failed: {}", self.queue.failed[*id]));
                }
                Root::Circle(members) => {
                    behind.extend(members.iter().map(|id| (*id).to_owned()));
                    let more = if members.len() > NAMED { " -> …" } else { "" };
                    let named: Vec<&str> = members.iter().take(NAMED).copied().collect();
                    let way = format!("{}{more} -> {}", named.join(" -> "), members[0]);
                    errors.push(format!("tasks depend on each other: {way}"));
                }
            }
        }
        behind.truncate(NAMED);
        let more = errors.len().saturating_sub(3);
        errors.truncate(3);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        (behind, errors.join("; ") + &more)
    }
}

/// Tasks that wait for each other. Of those that are behind others of them, one circle for each way round.
fn circles<'a>(queue: &'a Queue, dependents: &BTreeMap<&'a str, Vec<&'a str>>) -> Vec<Vec<&'a str>> {
    // Takes away whoever waits for nobody in the queue, then whoever waited for these only, and so on.
    let waits = |row: &Row| row.waits_for.iter().filter(|id| queue.rows.contains_key(id.as_str())).count();
    let mut left: BTreeMap<&str, usize> =
        queue.rows.iter().map(|(id, row)| (id.as_str(), waits(row))).collect();
    let mut free: Vec<&str> = left.iter().filter(|(_, waits)| **waits == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        left.remove(id);
        for dependent in dependents.get(id).into_iter().flatten() {
            let Some(waits) = left.get_mut(dependent) else { continue };
            *waits -= 1;
            if *waits == 0 {
                free.push(dependent);
            }
        }
    }
    // Whoever is left waits for another of them, so every way leads into a circle.
    let mut circles = Vec::new();
    let mut walked: BTreeSet<&str> = BTreeSet::new();
    for start in left.keys() {
        let mut way: Vec<&str> = Vec::new();
        let mut at = *start;
        while walked.insert(at) {
            way.push(at);
            let next = queue.rows[at].waits_for.iter().find(|id| left.contains_key(id.as_str()));
            let Some(next) = next else { break };
            at = next;
        }
        if let Some(first) = way.iter().position(|id| *id == at) {
            circles.push(from_least(way.split_off(first)));
        }
    }
    circles
}

/// The same circle, begun with the name that is the least.
fn from_least(mut circle: Vec<&str>) -> Vec<&str> {
    let least = circle.iter().enumerate().min_by_key(|(_, id)| **id).map_or(0, |(at, _)| at);
    circle.rotate_left(least);
    circle
}

/// FNV-1a: what is stored depends on it, so it must never change.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Queue {
    /// Whether anybody may be behind somebody else than before.
    pub(super) fn waits_differ(&self, now: &Self) -> bool {
        let failed = self.failed.keys().ne(now.failed.keys());
        let waits = |queue: &'_ Self| queue.rows.values().map(|row| row.waits_for.len()).sum::<usize>();
        self.more || failed || self.rows.len() != now.rows.len() || waits(self) != waits(now) || {
            let mut rows = self.rows.iter().zip(&now.rows);
            rows.any(|((id, row), (other_id, other))| id != other_id || row.waits_for != other.waits_for)
        }
    }

    /// Tells of those that are behind more than they were told to be. Whether there are more than one event tells of.
    pub(super) fn tell_blocked(&mut self, message: &Incoming, changed: bool) -> Result<bool, Failure> {
        if !changed {
            return Ok(false);
        }
        let behind = Behind::of(self);
        let (mut quiet, mut told, mut more) = (Vec::new(), Vec::new(), false);
        for (id, row) in &self.rows {
            let roots = behind.blocked.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            let sum = behind.sum(roots);
            if sum == row.blocked {
                continue;
            }
            if sum.0 < row.blocked.0 || roots.is_empty() {
                quiet.push((id.clone(), sum));
            } else if told.len() == TOLD_AT_ONCE {
                more = true;
                break;
            } else {
                told.push((id.clone(), sum, behind.told(roots)));
            }
        }
        for (id, sum) in quiet {
            self.rows.entry(id).and_modify(|row| row.blocked = sum);
        }
        for (id, sum, (behind, error)) in told {
            let Some(row) = self.rows.get_mut(&id) else { continue };
            row.blocked = sum;
            self.told += 1;
            let (story_id, timestamp) = (row.story_id.clone(), Timestamp::now());
            let blocked = Blocked { task_id: id, story_id, behind, error, timestamp };
            blocked.tell(&message.cause(), &format!("blocked:{}", self.told))?;
        }
        Ok(more)
    }
}
