//! The jobs that this host has in hand: one copy of each at a time, whichever durable it came from. Knows nothing of what is done
//! with them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Items by job.
#[derive(Debug)]
pub(super) struct InFlight<T>(Arc<Mutex<HashMap<String, T>>>);

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> InFlight<T> {
    /// Takes an item in hand, until the entry is dropped; nothing if another copy of it is. The newest copy is the one
    /// that [`InFlight::all`] gives: it is the one that the bus waits for.
    pub(super) fn enter(&self, id: String, item: T) -> Option<Entry<T>> {
        let other = lock(&self.0).insert(id.clone(), item);
        other.is_none().then(|| Entry { all: self.0.clone(), id })
    }

    pub(super) fn all(&self) -> Vec<T> {
        lock(&self.0).values().cloned().collect()
    }
}

/// Keeps an item in hand.
#[derive(Debug)]
pub(super) struct Entry<T> {
    all: Arc<Mutex<HashMap<String, T>>>,
    id: String,
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.id);
    }
}

fn lock<T>(all: &Mutex<HashMap<String, T>>) -> MutexGuard<'_, HashMap<String, T>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_is_turned_away_while_the_first_is_in_hand() {
        let jobs = InFlight::default();
        let first = jobs.enter("o.1".into(), 'a');
        assert!(first.is_some() && jobs.enter("o.2".into(), 'b').is_some());
        assert!(jobs.enter("o.1".into(), 'c').is_none());
        assert_eq!(jobs.all(), ['c'], "the newest copy is kept alive, and o.2 is through");
        drop(first);
        assert!(jobs.all().is_empty());
        assert!(jobs.enter("o.1".into(), 'd').is_some());
    }
}
