//! What the bus holds, and each operation on it inside one write transaction. An operation that is refused has written
//! nothing; one that meets a [`Fault`] takes its whole group with it.

mod making;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    backlog,
    cells::Cells,
    durable::{Durable, Subscriber},
    fault::Fault,
    inboxes::Inboxes,
    op::{Commit, Op, Settle, Store},
    outcome::Outcome,
    stream::{Facts, MAX_MESSAGE, Stream, nanos},
    tables::{DurableId, StreamId, Tables},
};
use crate::{
    api::{Message, PublishAck, StreamSpec},
    backlog::Backlog,
    error::{CommitError, Error},
    names,
    outgoing::weight,
};

/// The stream of jobs and whatever else is the daemon's own.
const OURS: &str = "COFFERDAM";
const OUR_SUBJECTS: &str = "cd.>";
/// Of effects and state together: as on a server, whose limit also holds what is written around them.
pub(super) const MAX_COMMIT: usize = 1024 * 1024 - 64 * 1024;
/// Messages of one stream that go for age in one group.
const EXPIRED: usize = 4096;
/// Timers that fire in one group.
const FIRED: usize = 1024;
/// Before a timer that no stream took is tried again.
const LATER: Duration = Duration::from_secs(60);

/// The time as both clocks have it: nanoseconds since the epoch, and one that never jumps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: u64,
    pub(super) steady: Instant,
}

#[derive(Debug, Default)]
pub(super) struct State {
    streams: BTreeMap<StreamId, Stream>,
    durables: BTreeMap<DurableId, Durable>,
    /// By the identity of their events.
    origins: HashMap<String, DurableId>,
    inboxes: Inboxes,
}

impl State {
    /// From disk, with our own stream.
    pub(super) fn load(tables: &mut Tables<'_>, now: Now) -> Result<State, Fault> {
        tables.check_format()?;
        let mut state = State::default();
        for (name, row) in tables.streams()? {
            let stream = Stream::load(tables, name, row, now.wall)?;
            for (name, row) in tables.durables(stream.id())? {
                let durable = Durable::load(tables, &stream, &name, row, now)?;
                state.add(durable);
            }
            state.streams.insert(stream.id(), stream);
        }
        if !state.streams.values().any(|s| s.name == OURS) {
            let spec = StreamSpec {
                name: OURS.to_owned(),
                subjects: vec![OUR_SUBJECTS.to_owned()],
                max_age: None,
                max_messages: None,
                max_bytes: None,
                duplicate_window: None,
            };
            let ours = Stream::create(tables, &spec, true, now.wall)?;
            state.streams.insert(ours.id(), ours);
        }
        Ok(state)
    }

    fn add(&mut self, durable: Durable) {
        self.origins.insert(durable.origin.id.clone(), durable.id());
        self.durables.insert(durable.id(), durable);
    }

    pub(super) fn facts(&self) -> Vec<Facts> {
        let mut facts: Vec<Facts> = self.streams.values().map(Stream::facts).collect();
        facts.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        facts
    }

    /// About how much there is, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.streams.values().map(Stream::bytes).sum()
    }

    pub(super) fn run(
        &mut self,
        tables: &mut Tables<'_>,
        op: Op,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        match op {
            Op::Store(store, answer) => {
                let stored = self.store(tables, store, now, outcome);
                outcome.answer(answer, stored)?;
            }
            Op::Commit(commit, answer) => {
                let committed = self.commit(tables, *commit, now, outcome);
                outcome.answer(answer, committed)?;
            }
            Op::IsSettled { origin, sequence, answer } => {
                let settled = self.by_origin(&origin).map(|d| d.is_settled(sequence));
                outcome.answer(answer, Ok(settled))?;
            }
            Op::Backlog { origin, answer } => {
                self.note();
                let measured = self.backlog(tables, &origin);
                outcome.answer(answer, measured)?;
            }
            Op::Settle { durable, sequence, count, how } => {
                if let Some(durable) = self.durables.get_mut(&durable) {
                    match how {
                        Settle::Ack => durable.settle(tables, sequence)?,
                        Settle::Nak(delay) => durable.nak(tables, sequence, count, delay, now)?,
                        Settle::InProgress => durable.in_progress(sequence, count, now.steady),
                    }
                }
            }
            Op::Taken { durable, subscriber, sequence, bytes, at } => {
                if let Some(durable) = self.durables.get_mut(&durable) {
                    durable.taken(subscriber, sequence, bytes, at);
                }
            }
            Op::EnsureStream(spec, answer) => {
                let ensured = self.ensure_stream(tables, &spec, now);
                outcome.answer(answer, ensured)?;
            }
            Op::EnsureDurable(spec, answer) => {
                let ensured = self.ensure_durable(tables, &spec, now);
                outcome.answer(answer, ensured)?;
            }
            Op::FindDurable { stream, durable, answer } => {
                let mut all = self.durables.values();
                let found = all.find(|d| d.origin.stream == stream && d.origin.durable == durable);
                let origin = found.map(|durable| durable.origin.clone());
                outcome.answer(answer, Ok(origin))?;
            }
            Op::Subscribe { origin, subscriber, credit, wanted, arrivals, answer } => {
                let found = self.by_origin(&origin);
                let subscribed = found.map(|durable| {
                    durable.subscribe(Subscriber {
                        id: subscriber,
                        credit,
                        sent: 0,
                        wanted,
                        bytes: 0,
                        arrivals,
                    });
                    durable.id()
                });
                outcome.answer(answer, Ok(subscribed))?;
            }
            Op::Want { durable, subscriber, count, answer } => {
                if let Some(durable) = self.durables.get_mut(&durable) {
                    durable.want(subscriber, count);
                }
                outcome.answer(answer, Ok(()))?;
            }
            Op::Unsubscribe { subscriber, answer } => {
                for durable in self.durables.values_mut() {
                    durable.unsubscribe(subscriber);
                }
                if let Some(answer) = answer {
                    outcome.answer(answer, Ok(()))?;
                }
            }
            Op::DeleteStream(name, answer) => {
                let deleted = self.delete_stream(tables, &name);
                outcome.answer(answer, deleted)?;
            }
            Op::DeleteMessage { stream, sequence, answer } => {
                let deleted = self.delete_message(tables, &stream, sequence);
                outcome.answer(answer, deleted)?;
            }
            Op::DeleteDurable { stream, durable, answer } => {
                let deleted = self.delete_durable(tables, &stream, &durable);
                outcome.answer(answer, deleted)?;
            }
            Op::PutKey { bucket, key, value, expected, answer } => {
                let put = put_key(tables, &bucket, &key, value, expected);
                outcome.keys |= matches!(put, Ok(Ok(_)));
                outcome.answer(answer, put)?;
            }
            Op::Flush(answer) => outcome.answer(answer, Ok(()))?,
        }
        Ok(())
    }

    /// Events that have waited long enough are to come again.
    pub(super) fn wake(&mut self, now: Now) {
        for durable in self.durables.values_mut() {
            durable.wake(now.steady);
        }
    }

    /// What time brings: messages end, timers fire, whoever can take an event gets one. Then all that changed is
    /// written.
    pub(super) fn end_group(
        &mut self,
        tables: &mut Tables<'_>,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<(), Fault> {
        for stream in self.streams.values_mut() {
            stream.expire(tables, now.wall, EXPIRED)?;
        }
        if let Some(ours) = self.streams.values_mut().find(|s| s.name == OURS) {
            self.inboxes.forget(tables, ours, self.durables.values(), now)?;
        }
        self.fire(tables, now, outcome)?;
        self.note();
        for durable in self.durables.values_mut() {
            if let Some(stream) = self.streams.get(&durable.stream()) {
                durable.assign(tables, stream, &mut outcome.sends)?;
            }
        }
        for stream in self.streams.values_mut() {
            stream.save(tables)?;
        }
        for durable in self.durables.values_mut() {
            durable.save(tables)?;
        }
        Ok(())
    }

    /// Tells the durables what came and went since the last time.
    fn note(&mut self) {
        for stream in self.streams.values_mut() {
            let (id, happened) = (stream.id(), stream.happened());
            if !happened.is_empty() {
                let durables = self.durables.values_mut().filter(|durable| durable.stream() == id);
                durables.for_each(|durable| durable.follow(&happened));
            }
        }
    }

    fn backlog(&self, tables: &Tables<'_>, origin: &str) -> Result<Option<Backlog>, Fault> {
        let durable = self.origins.get(origin).and_then(|id| self.durables.get(id));
        let Some(durable) = durable else { return Ok(None) };
        let Some(stream) = self.streams.get(&durable.stream()) else { return Ok(None) };
        backlog::measure(tables, stream, durable).map(Some)
    }

    /// Timers that are due, at most [`FIRED`] in one group. One that no stream takes now waits for a while.
    fn fire(&mut self, tables: &mut Tables<'_>, now: Now, outcome: &mut Outcome) -> Result<(), Fault> {
        for _ in 0..FIRED {
            let Some((id, message)) = tables.due_timer(now.wall)? else { break };
            let stream = self.covering(&message.subject);
            match stream.filter(|stream| stream.check(&message).is_ok()) {
                Some(stream) => {
                    tables.delete_timer(&id)?;
                    let stored = stream.append(tables, message, Some(&id), now.wall)?;
                    outcome.stored.push(stored);
                }
                None => {
                    let subject = &message.subject;
                    tracing::error!(
                        timer = id,
                        subject,
                        "no stream takes what is due; trying again in {LATER:?}"
                    );
                    tables.put_timer(&id, now.wall.saturating_add(nanos(LATER)), &message)?;
                }
            }
        }
        Ok(())
    }

    /// How long nothing will happen by itself.
    pub(super) fn idle(&self, tables: &Tables<'_>, now: Now) -> Result<Option<Duration>, Fault> {
        if self.durables.values().any(Durable::is_unfinished) {
            return Ok(Some(Duration::ZERO));
        }
        let due = self.durables.values().filter_map(Durable::next_due).min();
        let mut idle = due.map(|at| at.saturating_duration_since(now.steady));
        let mut earliest = tables.next_timer()?;
        for stream in self.streams.values() {
            earliest = earliest.into_iter().chain(stream.next_expiry(tables)?).min();
        }
        if let Some(at) = earliest {
            let wait = Duration::from_nanos(at.saturating_sub(now.wall));
            idle = Some(idle.map_or(wait, |idle| idle.min(wait)));
        }
        Ok(idle)
    }

    fn by_origin(&mut self, origin: &str) -> Option<&mut Durable> {
        self.durables.get_mut(self.origins.get(origin)?)
    }

    fn covering(&mut self, subject: &str) -> Option<&mut Stream> {
        self.streams.values_mut().find(|s| s.covers(subject))
    }

    fn store(
        &mut self,
        tables: &mut Tables<'_>,
        store: Store,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<Result<PublishAck, Error>, Fault> {
        let Store { message, id, expected } = store;
        let subject = &message.subject;
        let Some(stream) = self.covering(subject) else {
            return Ok(Err(Error::NoStream { subject: subject.clone() }));
        };
        if let Err(e) = check_size(&message).and_then(|_| stream.check(&message)) {
            return Ok(Err(e));
        }
        if let Some(sequence) = id.as_ref().and_then(|id| stream.duplicate(id, now.wall)) {
            return Ok(Ok(PublishAck { stream: stream.name.clone(), sequence, duplicate: true }));
        }
        if let Some(expected) = expected
            && tables.last_of(stream.id(), subject)?.unwrap_or(0) != expected
        {
            return Ok(Err(Error::WrongLastSequence { subject: subject.clone(), expected }));
        }
        let stored = stream.append(tables, message, id.as_deref(), now.wall)?;
        let ack = PublishAck { stream: stream.name.clone(), sequence: stored.sequence, duplicate: false };
        outcome.stored.push(stored);
        Ok(Ok(ack))
    }

    /// State, effects and ack in one transaction: there is nothing to apply later.
    fn commit(
        &mut self,
        tables: &mut Tables<'_>,
        commit: Commit,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<Result<(), CommitError>, Fault> {
        let Commit { origin, sequence, point, revision, writes, others, effects, timers, cancels, .. } =
            commit;
        let Some(durable) = self.origins.get(&origin.id).copied() else {
            let name = format!("{}/{}", origin.stream, origin.durable);
            return Ok(Err(Error::Gone { what: "durable", name }.into()));
        };
        if self.durables.get(&durable).is_some_and(|d| d.is_settled(sequence)) {
            return Ok(Err(CommitError::Settled));
        }
        let mut size = 0;
        for effect in effects.iter().chain(timers.iter().map(|t| &t.message)) {
            let Some(stream) = self.covering(&effect.subject) else {
                let subject = effect.subject.clone();
                return Ok(Err(CommitError::Unfit(Error::NoStream { subject }.to_string())));
            };
            match check_size(effect).and_then(|weight| stream.check(effect).map(|()| weight)) {
                Ok(weight) => size += weight as usize,
                Err(e) => return Ok(Err(CommitError::Unfit(e.to_string()))),
            }
        }
        let Some(cells) = Cells::changed(tables, point, revision, writes, others)? else {
            return Ok(Err(CommitError::Conflict));
        };
        let largest = cells.largest_message(size);
        if largest > MAX_COMMIT {
            return Ok(Err(CommitError::Unfit(format!(
                "effects and state of {largest} bytes together are over the limit of {MAX_COMMIT} for one commit"
            ))));
        }
        cells.put(tables)?;
        for effect in effects {
            if let Some(stream) = self.covering(&effect.subject) {
                // Its id needs no window: this transaction is the only one that stores it.
                let stored = stream.append(tables, effect, None, now.wall)?;
                outcome.stored.push(stored);
            }
        }
        for timer in &timers {
            tables.put_timer(&timer.id, timer.at, &timer.message)?;
        }
        for id in &cancels {
            tables.delete_timer(id)?;
        }
        if let Some(durable) = self.durables.get_mut(&durable) {
            durable.settle(tables, sequence)?;
        }
        Ok(Ok(()))
    }
}

fn put_key(
    tables: &mut Tables<'_>,
    bucket: &str,
    key: &str,
    value: Option<Bytes>,
    expected: Option<u64>,
) -> Result<Result<u64, Error>, Fault> {
    let now = tables.key(bucket, key)?;
    let revision = now.as_ref().map_or(0, |k| k.revision);
    // A deleted key counts as never set, too.
    let absent = now.is_none_or(|k| k.value.is_none());
    match expected {
        Some(expected) if expected != revision && !(expected == 0 && absent) => {
            Ok(Err(Error::WrongLastSequence { subject: names::key_subject(bucket, key), expected }))
        }
        _ => tables.put_key(bucket, key, value).map(Ok),
    }
}

/// What a message weighs, if it is not too much.
fn check_size(message: &Message) -> Result<u64, Error> {
    let size = weight(&message.headers) + message.data.len() as u64;
    if size > MAX_MESSAGE {
        return Err(Error::TooLarge { subject: message.subject.clone(), size, max: MAX_MESSAGE });
    }
    Ok(size)
}
