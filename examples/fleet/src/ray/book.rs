//! The deliberations that were taken, and how each stands.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

/// A deliberation as it was asked for, limits filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deliberation {
    pub(super) id: String,
    pub(super) task_id: String,
    pub(super) role: String,
    pub(super) model: String,
    pub(super) story_id: String,
    /// Empty for a backlog review.
    pub(super) plan_id: String,
    pub(super) timeout_seconds: i32,
    pub(super) max_retries: i32,
    pub(super) metadata: Vec<(String, String)>,
    /// Id and role of each.
    pub(super) agents: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Running,
    Completed { agent_id: String, proposal: String },
    Failed { error: String },
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) deliberation: Deliberation,
    pub(super) standing: Standing,
    pub(super) since: SystemTime,
    started: Instant,
    ended: Option<Instant>,
}

impl Entry {
    /// Milliseconds from the start to the end, or to now.
    pub(super) fn duration_ms(&self) -> u64 {
        let ended = self.ended.unwrap_or_else(Instant::now);
        u64::try_from(ended.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct Pages {
    opened: Instant,
    started: SystemTime,
    entries: Vec<Entry>,
    /// By idempotency key: the request's digest and the deliberation it led to.
    keys: HashMap<String, (Vec<u8>, String)>,
}

/// Shared by the service and its workers.
#[derive(Debug, Clone)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

impl Default for Book {
    fn default() -> Book {
        Book(Arc::new(Mutex::new(Pages {
            opened: Instant::now(),
            started: SystemTime::now(),
            entries: Vec::new(),
            keys: HashMap::new(),
        })))
    }
}

/// What became of a request to open a deliberation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    New(Deliberation),
    /// The idempotency key was there before, with the same request.
    Again(String),
    /// The idempotency key belongs to another request.
    Misused,
}

impl Book {
    /// Enters a deliberation and gives it its id.
    pub(super) fn open(&self, mut deliberation: Deliberation, key: Option<(String, Vec<u8>)>) -> Opened {
        let mut pages = self.pages();
        if let Some((key, digest)) = &key
            && let Some((known, id)) = pages.keys.get(key)
        {
            return if known == digest { Opened::Again(id.clone()) } else { Opened::Misused };
        }
        // The start tells this run's ids from an earlier one's, which the bus may still remember as message ids.
        let run = pages.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        deliberation.id = format!("deliberation-{run:x}-{}", pages.entries.len() + 1);
        if let Some((key, digest)) = key {
            pages.keys.insert(key, (digest, deliberation.id.clone()));
        }
        pages.entries.push(Entry {
            deliberation: deliberation.clone(),
            standing: Standing::Running,
            since: SystemTime::now(),
            started: Instant::now(),
            ended: None,
        });
        Opened::New(deliberation)
    }

    pub(super) fn end(&self, id: &str, standing: Standing) {
        if let Some(entry) = self.pages().entries.iter_mut().find(|entry| entry.deliberation.id == id) {
            entry.standing = standing;
            entry.ended = Some(Instant::now());
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Entry> {
        self.pages().entries.iter().find(|entry| entry.deliberation.id == id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Entry> {
        self.pages().entries.clone()
    }

    pub(super) fn uptime_seconds(&self) -> i64 {
        i64::try_from(self.pages().opened.elapsed().as_secs()).unwrap_or(i64::MAX)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Every change is one assignment or push: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
