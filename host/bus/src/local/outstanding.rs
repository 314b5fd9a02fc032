//! The events of a durable that have been delivered and not settled: where each one is, and which come again when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Pending {
    /// Of its deliveries.
    pub(super) count: u32,
    pub(super) state: State,
    /// There is a row about it in `again`.
    pub(super) noted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be delivered as soon as somebody can take it.
    Ready,
    /// Waits in a subscriber's buffer.
    Sent(u64),
    /// Taken; comes again unless it is settled by then.
    Held(Instant),
    /// Handed back; comes again then.
    Delayed(Instant),
}

#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// By sequence.
    events: BTreeMap<u64, Pending>,
    /// Those that are [`State::Ready`], in the order in which they became so; and some that no longer are.
    ready: VecDeque<u64>,
    /// Those that are held or delayed, by time.
    due: BTreeSet<(Instant, u64)>,
}

impl Outstanding {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The lowest sequence.
    pub(super) fn first(&self) -> Option<u64> {
        self.events.keys().next().copied()
    }

    pub(super) fn state(&self, sequence: u64) -> Option<State> {
        self.events.get(&sequence).map(|p| p.state)
    }

    /// Is this its latest delivery?
    pub(super) fn is_at(&self, sequence: u64, count: u32) -> bool {
        self.events.get(&sequence).is_some_and(|p| p.count == count)
    }

    pub(super) fn sent_to(&self, subscriber: u64) -> Vec<u64> {
        let sent = self.events.iter().filter(|(_, p)| p.state == State::Sent(subscriber));
        sent.map(|(sequence, _)| *sequence).collect()
    }

    pub(super) fn insert(&mut self, sequence: u64, pending: Pending) {
        self.enter(sequence, pending.state);
        self.events.insert(sequence, pending);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Pending> {
        let pending = self.events.remove(&sequence)?;
        self.leave(sequence, pending.state);
        Some(pending)
    }

    pub(super) fn note(&mut self, sequence: u64) {
        if let Some(pending) = self.events.get_mut(&sequence) {
            pending.noted = true;
        }
    }

    pub(super) fn change(&mut self, sequence: u64, state: State) {
        let Some(pending) = self.events.get_mut(&sequence) else { return };
        let before = std::mem::replace(&mut pending.state, state);
        self.leave(sequence, before);
        self.enter(sequence, state);
    }

    /// Takes the next that is ready out of their queue, with the number of its deliveries so far; the caller delivers or
    /// removes it.
    pub(super) fn next_ready(&mut self) -> Option<(u64, u32)> {
        while let Some(sequence) = self.ready.pop_front() {
            if let Some(pending) = self.events.get(&sequence).filter(|p| p.state == State::Ready) {
                return Some((sequence, pending.count));
            }
        }
        None
    }

    /// What has waited long enough is ready.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((at, sequence)) = self.due.first().copied()
            && at <= now
        {
            self.change(sequence, State::Ready);
        }
    }

    /// When [`wake`](Self::wake) has something to do again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn enter(&mut self, sequence: u64, state: State) {
        match state {
            State::Ready => self.ready.push_back(sequence),
            State::Held(at) | State::Delayed(at) => {
                self.due.insert((at, sequence));
            }
            State::Sent(_) => {}
        }
    }

    fn leave(&mut self, sequence: u64, state: State) {
        match state {
            State::Held(at) | State::Delayed(at) => {
                self.due.remove(&(at, sequence));
            }
            // `ready` is looked through when it is taken from.
            State::Ready | State::Sent(_) => {}
        }
    }
}
