//! What each worker says of itself, over and over: what it serves, what it works, what it has done. Whoever falls silent is gone
//! from there after a few seconds.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_bus::{Bus, Error, Message, Stored};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::queues;

/// All reports.
pub const REPORTS: &str = "cd.w.*";
const PREFIX: &str = "cd.w.";
/// A worker of which nothing is heard for so long is none.
const LIFE: Duration = Duration::from_secs(20);
/// Of a report that tells nothing new.
pub(super) const AT_LEAST: Duration = Duration::from_secs(5);
/// Between two reports.
pub(super) const AT_MOST: Duration = Duration::from_millis(500);
/// Without an echo of our own for so long we know nothing of others, either.
const DEAF: Duration = Duration::from_secs(10);
/// Of our own reports, those that tell the time.
const ECHOES: usize = 8;
/// For so long it is remembered who worked a job.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Of a report, in bytes: it is one message.
const MAX_BYTES: usize = 512 << 10;
/// Of a name in it, which may be half a kilobyte long.
const MAX_NAME: usize = 64;
/// Jobs whose workers are remembered before the old ones are looked for.
const MANY: usize = 4096;

/// A worker, as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Host, process and a few digits that no other life of it has.
    pub worker: String,
    pub host: String,
    pub pid: u32,
    /// Times are in nanoseconds since the epoch.
    pub started: u64,
    /// What this was true of.
    pub at: u64,
    /// It takes no more jobs.
    pub draining: bool,
    pub backend: String,
    /// It works jobs of any model.
    pub any: bool,
    /// The models that it works, or has.
    pub models: Vec<Model>,
    /// Plugins that have used up their tokens of this hour.
    #[serde(default)]
    pub used_up: Vec<String>,
    pub running: Vec<Running>,
    #[serde(default)]
    pub totals: Totals,
}

/// How many jobs of a model a worker works at a time, and now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub name: String,
    pub concurrency: usize,
    pub running: usize,
}

/// A job that is worked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub job: String,
    /// The job that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    pub task_id: String,
    pub agent: String,
    pub role: String,
    pub model: String,
    pub plugin: String,
    pub submitted: u64,
    pub started: u64,
}

/// Since a worker's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Of all these, from their beginning to their end.
    pub worked_ms: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
}

impl Report {
    /// Makes it so small that it can be stored. Names are cut, and of very many jobs the newest are left out.
    pub(super) fn bound(&mut self) {
        for job in &mut self.running {
            for name in [&mut job.task_id, &mut job.agent, &mut job.role, &mut job.model, &mut job.plugin] {
                name.truncate(name.floor_char_boundary(MAX_NAME));
            }
        }
        let all = self.running.len();
        while !self.running.is_empty() && self.message().data.len() > MAX_BYTES {
            self.running.truncate(self.running.len() / 2);
        }
        if self.running.len() < all {
            let told = self.running.len();
            tracing::warn!(
                told,
                all,
                "a report of all jobs that are worked is too large; it tells of the oldest"
            );
        }
    }

    pub(super) fn message(&self) -> Message {
        Message {
            subject: format!("{PREFIX}{}", self.worker),
            headers: vec![("Nats-TTL".into(), format!("{}s", LIFE.as_secs()))],
            data: Bytes::from(serde_json::to_vec(self).unwrap_or_default()),
        }
    }

    fn read(stored: &Stored) -> Option<Self> {
        let read = serde_json::from_slice(&stored.message.data);
        read.inspect_err(|e| {
            tracing::warn!(subject = stored.message.subject, "a report that can't be read: {e}")
        })
        .ok()
    }
}

/// The last report of each worker that lives, sorted by name.
pub async fn reports(bus: &Arc<dyn Bus>) -> Result<Vec<Report>, Error> {
    // A worker that tells more meanwhile is read twice; its last word counts.
    let stored = queues::all(bus, REPORTS).await?;
    let by_name: std::collections::BTreeMap<_, _> =
        stored.iter().filter_map(Report::read).map(|report| (report.worker.clone(), report)).collect();
    Ok(by_name.into_values().collect())
}

/// A worker takes its leave: it is not to be counted on.
pub(super) async fn withdraw(bus: &Arc<dyn Bus>, worker: &str) -> Result<(), Error> {
    let subject = format!("{PREFIX}{worker}");
    if let (Some(last), Some(stream)) = (bus.last(&subject).await?, bus.covering(&subject).await?) {
        bus.delete_message(&stream.name, last.sequence).await?;
    }
    Ok(())
}

/// What this worker knows of others.
#[derive(Debug)]
pub(super) struct Others {
    own: String,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Of our own reports, the last few: how much later than they were written they were stored, by the clocks of both.
    echoes: VecDeque<i64>,
    /// With when it came.
    reports: HashMap<String, (Report, Instant)>,
    /// Jobs, with the worker that said that it works them.
    jobs: HashMap<String, (String, Instant)>,
}

impl Others {
    /// `own`: this worker's name.
    pub(super) fn new(own: String) -> Self {
        Self { own, heard: Mutex::default() }
    }

    pub(super) fn heard(&self, stored: &Stored) {
        let Some(report) = Report::read(stored) else { return };
        let now = Instant::now();
        let mut heard = self.lock();
        for job in &report.running {
            heard.jobs.insert(job.job.clone(), (report.worker.clone(), now));
        }
        heard.reports.retain(|_, (_, at)| now.duration_since(*at) < LIFE);
        if heard.jobs.len() >= MANY {
            heard.jobs.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        }
        if report.worker == self.own {
            heard.echoes.truncate(ECHOES - 1);
            let later = stored.timestamp.cast_signed().wrapping_sub(report.at.cast_signed());
            heard.echoes.push_front(later);
        }
        heard.reports.insert(report.worker.clone(), (report, now));
    }

    /// The models that are worked now, by those who name them. None: somebody works any.
    pub(super) fn models(&self) -> Option<BTreeSet<String>> {
        let heard = self.lock();
        let living = heard.reports.values().filter(|(_, at)| at.elapsed() < LIFE).map(|(report, _)| report);
        let mut models = BTreeSet::new();
        for report in living {
            if report.any {
                return None;
            }
            models.extend(report.models.iter().map(|model| model.name.clone()));
        }
        Some(models)
    }

    /// How far the bus's clock is ahead of ours, in nanoseconds; nothing before a report of ours came back. The way there takes time, so
    /// that the least is the best guess.
    pub(super) fn ahead(&self) -> Option<i64> {
        self.lock().echoes.iter().min().copied()
    }

    /// Whether we hear at all, so that somebody's silence means something: our own reports come back.
    pub(super) fn are_heard(&self) -> bool {
        self.lock().reports.get(&self.own).is_some_and(|(_, at)| at.elapsed() < DEAF)
    }

    /// Another worker said that it works this job.
    pub(super) fn worked(&self, job: &str) -> bool {
        self.lock().jobs.get(job).is_some_and(|(by, _)| *by != self.own)
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs that this worker works, and what it has done.
#[derive(Debug, Default)]
pub(super) struct Book(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    running: HashMap<String, Running>,
    totals: Totals,
    changed: bool,
}

impl Book {
    /// A job is worked until this is dropped.
    pub(super) fn enter(&self, running: Running) -> Entered {
        let id = running.job.clone();
        let mut written = lock(&self.0);
        written.running.insert(id.clone(), running);
        written.changed = true;
        drop(written);
        Entered { book: self.0.clone(), id }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Totals)) {
        let mut written = lock(&self.0);
        count(&mut written.totals);
        written.changed = true;
    }

    /// What is worked, the oldest first, and what was done; and whether that is news.
    pub(super) fn read(&self) -> (Vec<Running>, Totals, bool) {
        let mut written = lock(&self.0);
        let mut running: Vec<_> = written.running.values().cloned().collect();
        let (totals, changed) = (written.totals, std::mem::take(&mut written.changed));
        drop(written);
        running.sort_by(|a, b| (a.started, &a.job).cmp(&(b.started, &b.job)));
        (running, totals, changed)
    }
}

/// Keeps a job in the book.
#[derive(Debug)]
pub(super) struct Entered {
    book: Arc<Mutex<Written>>,
    id: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut written = lock(&self.book);
        written.running.remove(&self.id);
        written.changed = true;
    }
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(worker: &str, models: &[&str], jobs: &[&str]) -> Stored {
        let running = jobs.iter().map(|id| Running { job: (*id).into(), ..Running::default() }).collect();
        let models =
            models.iter().map(|name| Model { name: (*name).to_owned(), ..Model::default() }).collect();
        let report = Report { worker: worker.into(), models, running, ..Report::default() };
        Stored { message: report.message(), sequence: 1, timestamp: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_falls_silent_serves_nothing_any_more() {
        let others = Others::new("two".into());
        others.heard(&told("one", &["m"], &["j"]));
        others.heard(&told("two", &["n"], &["k"]));
        let models = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(others.models(), models(&["m", "n"]));
        assert!(others.worked("j") && !others.worked("k") && !others.worked("l"));
        tokio::time::advance(LIFE / 2).await;
        others.heard(&told("two", &["n"], &[]));
        assert!(others.are_heard());
        tokio::time::advance(LIFE / 2).await;
        assert_eq!(others.models(), models(&["n"]));
        assert!(!others.are_heard());
        assert!(others.worked("j"), "it may be taken over");
    }

    #[test]
    fn a_report_that_was_long_on_its_way_does_not_tell_the_time() {
        let others = Others::new("w".into());
        assert_eq!(others.ahead(), None);
        for (stored, ahead) in [(900, 900), (5, 5), (700, 5)] {
            let echo = told("w", &[], &[]);
            others.heard(&Stored { timestamp: stored, ..echo });
            assert_eq!(others.ahead(), Some(ahead));
        }
        others.heard(&Stored { timestamp: 1, ..told("other", &[], &[]) });
        assert_eq!(others.ahead(), Some(5));
        for _ in 0..ECHOES {
            others.heard(&Stored { timestamp: 400, ..told("w", &[], &[]) });
        }
        assert_eq!(others.ahead(), Some(400), "clocks are set");
    }

    #[test]
    fn a_report_stays_small_enough_to_be_stored() {
        let job = |n: usize| Running {
            job: format!("{n:0300}"),
            task_id: "\u{1}".repeat(512),
            role: "ü".repeat(256),
            model: "\"".repeat(512),
            ..Running::default()
        };
        let mut report = Report { running: (0..5000).map(job).collect(), ..Report::default() };
        report.bound();
        let size = report.message().data.len();
        assert!(size <= MAX_BYTES && size > MAX_BYTES / 4, "{size}");
        assert_eq!(report.running[0].job.len(), 300);
        assert!(report.running[0].role.len() <= MAX_NAME);
    }

    #[test]
    fn the_book_tells_what_is_worked_and_whether_that_is_news() {
        let book = Book::default();
        assert_eq!(book.read(), (Vec::new(), Totals::default(), false));
        let job = |id: &str, started| Running { job: id.into(), started, ..Running::default() };
        let (two, one) = (book.enter(job("b", 2)), book.enter(job("a", 1)));
        assert_eq!(book.read(), (vec![job("a", 1), job("b", 2)], Totals::default(), true));
        assert!(!book.read().2);
        drop(two);
        book.count(|totals| totals.done += 1);
        assert_eq!(book.read(), (vec![job("a", 1)], Totals { done: 1, ..Totals::default() }, true));
        drop(one);
    }
}
