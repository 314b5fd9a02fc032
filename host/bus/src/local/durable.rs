//! A durable: what has been delivered, to whom, and what is to come again. An event below `next` that is not outstanding is
//! settled.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc::UnboundedSender, time::Instant};

use super::{
    backlog::{Counts, Happened},
    fault::Fault,
    outstanding::{Outstanding, Pending, State},
    rows::DurableRow,
    settled::Settled,
    state::Now,
    stream::{Stream, nanos},
    tables::{DurableId, StreamId, Tables},
};
use crate::{
    ahead::{BYTES, weight},
    api::{ConsumerSpec, Origin, Stored},
    subject,
};

/// Messages looked at for one durable in one group, so that a filter that matches little does not hold up the rest.
const LOOKS: usize = 4096;
/// Of a delay.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How far the cursor may be ahead of what is on disk where nothing was delivered.
const SKIPPED: u64 = 65_536;

/// A message on its way to a subscriber.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) stored: Arc<Stored>,
    pub(super) count: u32,
    /// So many have been delivered to nobody.
    pub(super) behind: u64,
}

/// Somebody who takes deliveries.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: u64,
    /// How many more it can hold.
    pub(super) credit: usize,
    /// What it holds and has not taken.
    pub(super) sent: usize,
    /// How many more it wants, whatever it can hold. None: all.
    pub(super) wanted: Option<usize>,
    /// What it holds and has not taken weighs so much.
    pub(super) bytes: usize,
    pub(super) arrivals: UnboundedSender<Arrival>,
}

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) origin: Arc<Origin>,
    stream: StreamId,
    row: DurableRow,
    settled: Settled,
    outstanding: Outstanding,
    subscribers: Vec<Subscriber>,
    /// Who is next.
    turn: usize,
    /// There may be more to look at than one group may.
    unfinished: bool,
    counts: Counts,
    /// Events that their stream discarded before they were settled, in this group.
    discarded: u64,
    changed: bool,
    saved_next: u64,
}

impl Durable {
    pub(super) fn create(
        tables: &mut Tables<'_>,
        stream: &Stream,
        spec: &ConsumerSpec,
        now: u64,
    ) -> Result<Durable, Fault> {
        let row = DurableRow {
            id: tables.new_id()?,
            filter: spec.filter.clone(),
            ack_wait: nanos(spec.ack_wait),
            max_deliver: spec.max_deliver,
            max_ack_pending: spec.max_ack_pending,
            ordered: spec.ordered,
            created: now,
            floor: 0,
            next: 1,
            waiting: None,
        };
        let mut durable = Durable::new(stream, &spec.durable, row);
        durable.counts.waiting = durable.count(tables, stream)?;
        durable.row.waiting = Some(durable.counts.waiting);
        tables.put_durable(stream.id(), &spec.durable, &durable.row)?;
        Ok(durable)
    }

    fn new(stream: &Stream, name: &str, row: DurableRow) -> Durable {
        let origin = Origin {
            id: Origin::identity(&stream.name, stream.created(), name, row.created),
            stream: stream.name.clone(),
            stream_created: stream.created(),
            durable: name.to_owned(),
            durable_created: row.created,
            filter: row.filter.clone(),
            ack_wait: Duration::from_nanos(row.ack_wait),
            ordered: row.ordered,
        };
        Durable {
            origin: Arc::new(origin),
            stream: stream.id(),
            settled: Settled::default(),
            outstanding: Outstanding::default(),
            subscribers: Vec::new(),
            turn: 0,
            unfinished: false,
            counts: Counts::default(),
            discarded: 0,
            changed: false,
            saved_next: row.next,
            row,
        }
    }

    /// From disk: whoever held events is gone, so they are ready again.
    pub(super) fn load(
        tables: &Tables<'_>,
        stream: &Stream,
        name: &str,
        row: DurableRow,
        now: Now,
    ) -> Result<Durable, Fault> {
        let mut durable = Durable::new(stream, name, row);
        durable.counts.waiting = match durable.row.waiting {
            Some(waiting) => waiting,
            // Written by a version that did not count.
            None => durable.count(tables, stream)?,
        };
        durable.settled = Settled::load(tables, durable.row.id)?;
        let again = tables.again(durable.row.id)?;
        let mut from = durable.row.floor + 1;
        loop {
            while durable.settled.contains(from) {
                from += 1;
            }
            let Some(stored) = stream.message_from(tables, from)? else { break };
            let sequence = stored.sequence;
            if sequence >= durable.row.next {
                break;
            }
            from = sequence + 1;
            if durable.settled.contains(sequence) || !durable.wants(&stored) {
                continue;
            }
            let noted = again.get(&sequence).copied();
            let (count, not_before) = noted.unwrap_or((1, 0));
            // A clock that was set back meanwhile is not to hold it for ever.
            let wait = Duration::from_nanos(not_before.saturating_sub(now.wall)).min(LONGEST);
            let state = if wait.is_zero() { State::Ready } else { State::Delayed(now.steady + wait) };
            durable.outstanding.insert(sequence, Pending { count, state, noted: noted.is_some() });
        }
        Ok(durable)
    }

    pub(super) fn id(&self) -> DurableId {
        self.row.id
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(super) fn wants(&self, stored: &Stored) -> bool {
        subject::covers(&self.row.filter, &stored.message.subject)
    }

    /// What waits, message by message.
    fn count(&self, tables: &Tables<'_>, stream: &Stream) -> Result<u64, Fault> {
        let (mut from, mut waiting) = (self.row.next, 0);
        while let Some(stored) = stream.message_from(tables, from)? {
            from = stored.sequence + 1;
            waiting += u64::from(self.wants(&stored));
        }
        Ok(waiting)
    }

    /// Counts what came into its stream and went out of it.
    pub(super) fn follow(&mut self, happened: &[Happened]) {
        for happened in happened {
            let (sequence, subject) = match happened {
                Happened::Stored(stored) => (stored.sequence, &stored.message.subject),
                Happened::Gone { sequence, subject, .. } => (*sequence, subject),
            };
            // What has been delivered is looked after by itself.
            if sequence < self.row.next || !subject::covers(&self.row.filter, subject) {
                continue;
            }
            self.changed = true;
            match happened {
                Happened::Stored(_) => self.counts.waiting += 1,
                Happened::Gone { discarded, .. } => {
                    self.counts.waiting = self.counts.waiting.saturating_sub(1);
                    self.discarded += u64::from(*discarded);
                }
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { discarded: self.counts.discarded + self.discarded, ..self.counts }
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding.len() as u64
    }

    /// All up to here is settled.
    pub(super) fn floor(&self) -> u64 {
        self.outstanding.first().unwrap_or(self.row.next) - 1
    }

    /// What the durable is and what it was to be, if they differ.
    pub(super) fn differences(&self, spec: &ConsumerSpec) -> Vec<String> {
        let deliver = |most: Option<u32>| most.map_or("unlimited".to_owned(), |n| n.to_string());
        let pairs = [
            ("filter", self.row.filter.clone(), spec.filter.clone()),
            (
                "ack_wait",
                format!("{:?}", Duration::from_nanos(self.row.ack_wait)),
                format!("{:?}", spec.ack_wait),
            ),
            ("max_deliver", deliver(self.row.max_deliver), deliver(spec.max_deliver)),
            ("max_ack_pending", self.row.max_ack_pending.to_string(), spec.max_ack_pending.to_string()),
            ("ordered", self.row.ordered.to_string(), spec.ordered.to_string()),
        ];
        let differing = pairs.into_iter().filter(|(_, its, ours)| its != ours);
        differing.map(|(what, its, ours)| format!("its {what} is {its}, ours is to be {ours}")).collect()
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber) {
        self.subscribers.push(subscriber);
    }

    /// What it has not taken goes to others.
    pub(super) fn unsubscribe(&mut self, id: u64) {
        let before = self.subscribers.len();
        self.subscribers.retain(|s| s.id != id);
        if self.subscribers.len() == before {
            return;
        }
        for sequence in self.outstanding.sent_to(id) {
            self.outstanding.change(sequence, State::Ready);
        }
    }

    /// A subscriber wants so many, with those that are on their way to it.
    pub(super) fn want(&mut self, subscriber: u64, count: usize) {
        if let Some(s) = self.subscribers.iter_mut().find(|s| s.id == subscriber) {
            s.wanted = Some(count.saturating_sub(s.sent));
        }
    }

    /// A subscriber has taken an event out of its buffer.
    pub(super) fn taken(&mut self, subscriber: u64, sequence: u64, bytes: usize, at: Instant) {
        if let Some(s) = self.subscribers.iter_mut().find(|s| s.id == subscriber) {
            s.credit += 1;
            s.sent = s.sent.saturating_sub(1);
            s.bytes = s.bytes.saturating_sub(bytes);
        }
        if self.outstanding.state(sequence) == Some(State::Sent(subscriber)) {
            self.outstanding.change(sequence, State::Held(at + self.origin.ack_wait));
        }
    }

    /// Whether the event is settled: delivered before, and not outstanding.
    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        sequence < self.row.next && self.outstanding.state(sequence).is_none()
    }

    pub(super) fn settle(&mut self, tables: &mut Tables<'_>, sequence: u64) -> Result<(), Fault> {
        let Some(pending) = self.outstanding.remove(sequence) else { return Ok(()) };
        self.settled.insert(sequence);
        self.changed = true;
        if pending.noted {
            tables.delete_again(self.row.id, sequence)?;
        }
        Ok(())
    }

    /// Hands back the delivery with this count; a later one is somebody else's.
    pub(super) fn nak(
        &mut self,
        tables: &mut Tables<'_>,
        sequence: u64,
        count: u32,
        delay: Option<Duration>,
        now: Now,
    ) -> Result<(), Fault> {
        if !self.outstanding.is_at(sequence, count) {
            return Ok(());
        }
        match delay.filter(|d| !d.is_zero()) {
            None => self.outstanding.change(sequence, State::Ready),
            Some(delay) => {
                let delay = delay.min(LONGEST);
                self.outstanding.change(sequence, State::Delayed(now.steady + delay));
                self.outstanding.note(sequence);
                tables.put_again(self.row.id, sequence, count, now.wall.saturating_add(nanos(delay)))?;
            }
        }
        Ok(())
    }

    pub(super) fn in_progress(&mut self, sequence: u64, count: u32, now: Instant) {
        let held = matches!(self.outstanding.state(sequence), Some(State::Held(_)));
        if held && self.outstanding.is_at(sequence, count) {
            self.outstanding.change(sequence, State::Held(now + self.origin.ack_wait));
        }
    }

    /// What has waited long enough is ready.
    pub(super) fn wake(&mut self, now: Instant) {
        self.outstanding.wake(now);
    }

    /// When [`wake`](Self::wake) has something to do again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.outstanding.next_due()
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Finds the next deliveries for those who can take them: what comes again first. Each is noted on disk before it
    /// leaves. The sends are the caller's, once that is synced.
    pub(super) fn assign(
        &mut self,
        tables: &mut Tables<'_>,
        stream: &Stream,
        send: &mut Vec<(UnboundedSender<Arrival>, Arrival)>,
    ) -> Result<(), Fault> {
        self.drop_discarded(tables, stream)?;
        self.unfinished = false;
        let mut looks = 0;
        while let Some(turn) = self.whose_turn() {
            let (stored, count) = match self.next_again(tables, stream)? {
                Some(again) => again,
                None if self.outstanding.len() >= self.row.max_ack_pending as usize => break,
                None => match self.next_new(tables, stream, &mut looks)? {
                    Some(stored) => (stored, 1),
                    None => break,
                },
            };
            let Some(subscriber) = self.subscribers.get_mut(turn) else { break };
            self.turn = turn + 1;
            subscriber.credit -= 1;
            subscriber.sent += 1;
            subscriber.wanted = subscriber.wanted.map(|wanted| wanted.saturating_sub(1));
            subscriber.bytes += weight(&stored.message);
            let (id, arrivals) = (subscriber.id, subscriber.arrivals.clone());
            let pending = Pending { count, state: State::Sent(id), noted: count > 1 };
            self.outstanding.insert(stored.sequence, pending);
            send.push((arrivals, Arrival { stored, count, behind: self.counts.waiting }));
        }
        Ok(())
    }

    fn whose_turn(&self) -> Option<usize> {
        let count = self.subscribers.len();
        let ready = |at: &usize| {
            self.subscribers.get(*at).is_some_and(|s| s.credit > 0 && s.wanted != Some(0) && s.bytes < BYTES)
        };
        (0..count).map(|n| (self.turn + n) % count).find(ready)
    }

    fn next_again(
        &mut self,
        tables: &mut Tables<'_>,
        stream: &Stream,
    ) -> Result<Option<(Arc<Stored>, u32)>, Fault> {
        while let Some((sequence, before)) = self.outstanding.next_ready() {
            let count = before + 1;
            let most = self.row.max_deliver.unwrap_or(u32::MAX);
            let stored = stream.message_from(tables, sequence)?.filter(|s| s.sequence == sequence);
            match stored {
                Some(stored) if count <= most => {
                    self.outstanding.note(sequence);
                    tables.put_again(self.row.id, sequence, count, 0)?;
                    return Ok(Some((stored, count)));
                }
                Some(_) => tracing::warn!(
                    durable = self.origin.durable,
                    sequence,
                    deliveries = most,
                    "delivered as often as the durable allows; it will not come again"
                ),
                None => self.discarded += 1,
            }
            self.settle(tables, sequence)?;
        }
        Ok(None)
    }

    fn next_new(
        &mut self,
        tables: &Tables<'_>,
        stream: &Stream,
        looks: &mut usize,
    ) -> Result<Option<Arc<Stored>>, Fault> {
        while let Some(stored) = stream.message_from(tables, self.row.next)? {
            if *looks == LOOKS {
                self.unfinished = true;
                return Ok(None);
            }
            *looks += 1;
            self.row.next = stored.sequence + 1;
            if self.wants(&stored) {
                self.changed = true;
                self.counts.waiting = self.counts.waiting.saturating_sub(1);
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    /// What its stream has discarded will not come again, and need not be remembered.
    fn drop_discarded(&mut self, tables: &mut Tables<'_>, stream: &Stream) -> Result<(), Fault> {
        while let Some(sequence) = self.outstanding.first().filter(|seq| *seq < stream.first()) {
            // In somebody's hands: let it be settled there.
            if matches!(self.outstanding.state(sequence), Some(State::Held(_) | State::Sent(_))) {
                break;
            }
            self.discarded += 1;
            self.settle(tables, sequence)?;
        }
        Ok(())
    }

    /// Writes what this group changed.
    pub(super) fn save(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        let discarded = std::mem::take(&mut self.discarded);
        if discarded > 0 {
            let Origin { stream, durable, .. } = &*self.origin;
            // Told to the operator by whoever watches.
            tracing::debug!(durable, stream, discarded, "discarded before they were handled");
            self.counts.discarded += discarded;
        }
        if !self.changed && self.row.next - self.saved_next < SKIPPED {
            return Ok(());
        }
        self.row.floor = self.floor();
        self.row.waiting = Some(self.counts.waiting);
        self.settled.save(tables, self.row.id, self.row.floor)?;
        tables.put_durable(self.stream, &self.origin.durable, &self.row)?;
        self.changed = false;
        self.saved_next = self.row.next;
        Ok(())
    }
}
