//! How far each durable has been acked. Acked implies applied, so what lies at or below the ack floor needs no memory in a
//! cell, and in the end none at all. For that the floor is persisted at `cd.f.<origin>`, where all hosts see it and where it
//! never falls, whatever a killed server forgets. Also notices a durable that was deleted or made anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tokio::{sync::watch, time::Instant};

use super::{
    consumers, headers,
    jsapi::{CallError, ConsumerAnswer, Fault, code},
    link::{Backoff, Link},
    publish::{Sent, send},
    read, streams,
};
use crate::{
    api::{Origin, Stored},
    error::Error,
    outgoing::EXPECTED,
};

/// Of all persisted floors.
pub(super) const FILTER: &str = "cd.f.*";
const PREFIX: &str = "cd.f.";
/// The newest that this version writes and reads.
const FORMAT: u32 = 1;

/// What is stored at `cd.f.<origin>`.
#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(uint64, tag = "2")]
    floor: u64,
    // Whose it is, for whoever finds it when nobody follows the durable any more.
    #[prost(string, tag = "3")]
    stream: String,
    #[prost(fixed64, tag = "4")]
    stream_created: u64,
    #[prost(string, tag = "5")]
    durable: String,
}

/// A durable by the identity of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) stream: String,
    stream_created: u64,
    pub(super) durable: String,
}

impl Named {
    /// From what is stored.
    pub(super) fn decode_from(subject: &str, data: &[u8]) -> Result<Named, Error> {
        Named::of_row(subject, data).map(|(named, _)| named)
    }

    /// The same, with its floor.
    pub(super) fn with_floor(stored: &Stored) -> Result<(Named, u64), Error> {
        Named::of_row(&stored.message.subject, &stored.message.data)
    }

    fn of_row(subject: &str, data: &[u8]) -> Result<(Named, u64), Error> {
        let row = decode(subject, data)?;
        let id = subject.strip_prefix(PREFIX).unwrap_or(subject).to_owned();
        let named =
            Named { id, stream: row.stream, stream_created: row.stream_created, durable: row.durable };
        Ok((named, row.floor))
    }

    /// Where the floor of an origin is persisted.
    pub(super) fn subject_of(origin: &str) -> String {
        format!("{PREFIX}{origin}")
    }

    /// The server's word on it; `None` if it is no more, or another under the same name.
    pub(super) async fn info(&self, link: &Link) -> Result<Option<ConsumerAnswer>, CallError> {
        match consumers::info(link, &self.stream, &self.durable).await {
            Ok(answer) => {
                let created = answer.created.0;
                let id = Origin::identity(&self.stream, self.stream_created, &answer.name, created);
                Ok((id == self.id).then_some(answer))
            }
            Err(e) if e.is(code::CONSUMER_NOT_FOUND) || e.is(code::STREAM_NOT_FOUND) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn decode(subject: &str, data: &[u8]) -> Result<Row, Error> {
    let unreadable = |reason: String| Error::Unreadable { subject: subject.to_owned(), reason };
    let row = Row::decode(data).map_err(|e| unreadable(e.to_string()))?;
    match row.format {
        FORMAT => Ok(row),
        other => Err(unreadable(format!("format {other}; this version knows {FORMAT}"))),
    }
}

/// Whether what was committed up to a sequence may have been forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No: what is not there was never there, and what is created now will be seen.
    Kept,
    /// It was all acked, long ago perhaps.
    Passed,
}

/// What is known of the ack of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acked {
    No,
    /// It was acked, or its stream discarded it before.
    Perhaps,
    Surely,
}

/// What is known of one origin.
#[derive(Debug)]
pub(super) struct OriginState {
    named: Named,
    /// Under it are the events of the durable.
    pub(super) filter: String,
    /// Highest seen: a killed server may count back, what was applied stays applied.
    floor: AtomicU64,
    known: Mutex<Known>,
    /// One asks for all.
    asking: tokio::sync::Mutex<()>,
    gone: watch::Sender<bool>,
    /// No longer among those in use: gone for good. Changes under the lock of `gone`.
    let_go: AtomicBool,
}

/// What `cd.f.<origin>` holds.
#[derive(Debug, Default)]
struct Known {
    floor: u64,
    revision: u64,
    /// During the last lease: each floor, and when it was asked for the last time that it was this one. Oldest first. A
    /// confirmation holds for a lease even if the floor has moved since, because nothing is forgotten so soon; so an event
    /// that its stream discards while it runs can still commit.
    confirmed: VecDeque<(Asked, u64)>,
}

/// When the server was asked for something. What it answers was so then or later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Goes on while the process is stopped.
    steady: Instant,
    /// Goes on while the machine is asleep. It may be set as well, which at worst asks once more than needed.
    wall: SystemTime,
}

impl Asked {
    pub(super) fn now() -> Asked {
        Asked { steady: Instant::now(), wall: SystemTime::now() }
    }

    pub(super) fn is_within(&self, lease: Duration) -> bool {
        self.steady.elapsed() < lease && self.wall.elapsed().is_ok_and(|since| since < lease)
    }
}

impl Known {
    fn confirm(&mut self, asked: Asked, floor: u64, revision: u64, lease: Duration) {
        (self.floor, self.revision) = (floor, revision);
        self.confirmed.retain(|(at, of)| *of != floor && at.is_within(lease));
        self.confirmed.push_back((asked, floor));
    }

    fn standing(&self, end: u64, lease: Duration) -> Option<Standing> {
        let mut fresh = self.confirmed.iter().filter(|(at, _)| at.is_within(lease));
        match fresh.any(|(_, floor)| *floor < end) {
            true => Some(Standing::Kept),
            false if self.floor >= end => Some(Standing::Passed),
            false => None,
        }
    }
}

impl OriginState {
    fn new(origin: &Origin) -> OriginState {
        let named = Named {
            id: origin.id.clone(),
            stream: origin.stream.clone(),
            stream_created: origin.stream_created,
            durable: origin.durable.clone(),
        };
        OriginState {
            named,
            filter: origin.filter.clone(),
            floor: AtomicU64::new(0),
            known: Mutex::default(),
            asking: Default::default(),
            gone: watch::Sender::new(false),
            let_go: AtomicBool::new(false),
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// As all hosts see it.
    pub(super) fn persisted(&self) -> u64 {
        self.known().floor
    }

    pub(super) fn gone(&self) -> watch::Receiver<bool> {
        self.gone.subscribe()
    }

    /// The durable is there, whatever a server said that had not heard of it yet.
    fn found(&self) {
        self.gone.send_if_modified(|gone| !self.let_go.load(Ordering::Relaxed) && std::mem::take(gone));
    }

    /// Whoever still has this is to come for another.
    fn let_go(&self) {
        self.gone.send_modify(|gone| {
            self.let_go.store(true, Ordering::Relaxed);
            *gone = true;
        });
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server for both floors. `Ok(false)`: the durable is no more, or another under the same name.
    pub(super) async fn refresh(&self, link: &Link) -> Result<bool, CallError> {
        let _asking = self.asking.lock().await;
        self.ask(link).await
    }

    /// The same, unless that was done within two rounds of asking for all floors. No answer leaves what is known.
    pub(super) async fn freshen(&self, link: &Link) {
        let lately = || {
            let known = self.known();
            known.confirmed.back().is_some_and(|(at, _)| at.is_within(link.timing.floors() * 2))
        };
        let _asking = self.asking.lock().await;
        // By whoever asked before us.
        if !lately()
            && let Err(e) = self.ask(link).await
        {
            tracing::debug!(?e, durable = self.named.durable, "no ack floor");
        }
    }

    /// Whether what was committed up to `end` may have been forgotten, by what was confirmed less than a lease ago, if
    /// anything was.
    pub(super) fn standing_now(&self, link: &Link, end: u64) -> Option<Standing> {
        self.known().standing(end, link.timing.lease)
    }

    /// The same; waits until something is confirmed.
    pub(super) async fn standing(&self, link: &Link, end: u64) -> Result<Standing, Error> {
        let known = || self.standing_now(link, end);
        let mut backoff = Backoff::new();
        loop {
            if let Some(standing) = known() {
                return Ok(standing);
            }
            let asking = self.asking.lock().await;
            // By whoever asked before us.
            if let Some(standing) = known() {
                return Ok(standing);
            }
            let asked = self.ask(link).await;
            drop(asking);
            match asked {
                Ok(true) => continue,
                Ok(false) => {
                    let name = format!("{}/{}", self.named.stream, self.named.durable);
                    return Err(Error::Gone { what: "durable", name });
                }
                // Our stream is made anew by whoever polls.
                Err(e) if e.is_passing() || e.is(code::STREAM_NOT_FOUND) => {
                    tracing::debug!(?e, durable = self.named.durable, "the floor is not confirmed yet");
                }
                Err(e) => return Err(e.into()),
            }
            backoff.wait().await;
        }
    }

    async fn ask(&self, link: &Link) -> Result<bool, CallError> {
        let asked = Asked::now();
        let Some(answer) = self.named.info(link).await? else {
            self.gone.send_replace(true);
            return Ok(false);
        };
        self.found();
        self.floor.fetch_max(answer.ack_floor.stream_seq, Ordering::Relaxed);
        // Nothing is committed before there is one, so that whoever tidies up finds every origin.
        let (floor, revision) = match self.read(link).await? {
            Some(found) => found,
            None => match self.write(link, 0).await {
                Some(written) => written,
                None => return Err(not_now("the floor is not persisted yet")),
            },
        };
        self.floor.fetch_max(floor, Ordering::Relaxed);
        self.known().confirm(asked, floor, revision, link.timing.lease);
        Ok(true)
    }

    async fn read(&self, link: &Link) -> Result<Option<(u64, u64)>, CallError> {
        let subject = self.subject();
        match read::last(link, streams::OURS, &subject).await {
            Ok(None) => Ok(None),
            Ok(Some(stored)) => match decode(&subject, &stored.message.data) {
                Ok(row) => Ok(Some((row.floor, stored.sequence))),
                Err(e) => {
                    tracing::error!(%e, "events of this durable wait");
                    Err(not_now("the persisted floor can't be read"))
                }
            },
            Err(e) => Err(e),
        }
    }

    /// Persists the floor, if it has moved. What another host has written meanwhile is seen by the next look.
    pub(super) async fn persist(&self, link: &Link) {
        let (persisted, revision) = {
            let known = self.known();
            (known.floor, known.revision)
        };
        // Without a revision it was never read.
        if revision > 0
            && self.floor() > persisted
            && let Some((floor, revision)) = self.write(link, revision).await
        {
            let mut known = self.known();
            (known.floor, known.revision) = (floor, revision);
        }
    }

    /// Gives the floor and its revision, if it was written for sure.
    async fn write(&self, link: &Link, expected: u64) -> Option<(u64, u64)> {
        let floor = self.floor();
        let Named { stream, stream_created, durable, .. } = self.named.clone();
        let data = Row { format: FORMAT, floor, stream, stream_created, durable }.encode_to_vec();
        let headers = headers::map(&[(EXPECTED, expected.to_string())]);
        match send(link, &self.subject(), headers, data.into()).await {
            Sent::Stored(ack) => Some((floor, ack.sequence)),
            other => {
                tracing::debug!(?other, durable = self.named.durable, "the floor is not persisted yet");
                None
            }
        }
    }

    fn subject(&self) -> String {
        Named::subject_of(&self.named.id)
    }
}

/// For now.
fn not_now(why: &str) -> CallError {
    CallError::Fault(Fault { code: 503, err_code: 0, description: why.to_owned() })
}

/// All origins in use, by id.
#[derive(Debug, Default)]
pub(super) struct Floors {
    origins: Mutex<HashMap<String, Arc<OriginState>>>,
}

impl Floors {
    /// Follows it, if it is not followed yet.
    pub(super) fn of(&self, origin: &Origin) -> Arc<OriginState> {
        let state = || Arc::new(OriginState::new(origin));
        self.lock().entry(origin.id.clone()).or_insert_with(state).clone()
    }

    pub(super) fn get(&self, origin: &str) -> Option<Arc<OriginState>> {
        self.lock().get(origin).cloned()
    }

    /// Follows it if the server has it. `None`: it is no more, or another under the same name.
    pub(super) async fn existing(
        &self,
        link: &Link,
        origin: &Origin,
    ) -> Result<Option<Arc<OriginState>>, CallError> {
        if let Some(followed) = self.get(&origin.id) {
            return Ok(Some(followed));
        }
        let found = OriginState::new(origin).named.info(link).await?;
        Ok(found.map(|_| self.of(origin)))
    }

    pub(super) fn all(&self) -> Vec<Arc<OriginState>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn remove(&self, origin: &str) {
        if let Some(removed) = self.lock().remove(origin) {
            removed.let_go();
        }
    }

    /// The durables of a stream, or the one of this name, were deleted.
    pub(super) fn forget(&self, stream: &str, durable: Option<&str>) {
        self.lock().retain(|_, origin| {
            let named = &origin.named;
            let deleted = named.stream == stream && durable.is_none_or(|d| named.durable == d);
            if deleted {
                origin.let_go();
            }
            !deleted
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<OriginState>>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn ago(seconds: u64) -> Asked {
        let ago = Duration::from_secs(seconds);
        Asked { steady: Instant::now() - ago, wall: SystemTime::now() - ago }
    }

    #[test]
    fn a_floor_confirmed_within_the_lease_decides_and_an_older_one_does_not() {
        let mut known = Known::default();
        assert_eq!(known.standing(10, LEASE), None, "never asked");
        known.confirm(ago(31), 9, 1, LEASE);
        assert_eq!(known.standing(10, LEASE), None, "too long ago");
        known.confirm(ago(29), 9, 1, LEASE);
        assert_eq!(known.standing(10, LEASE), Some(Standing::Kept));
        // It has moved, but not so long ago that anything is forgotten.
        known.confirm(ago(1), 10, 2, LEASE);
        assert_eq!(known.standing(10, LEASE), Some(Standing::Kept));
        assert_eq!(known.standing(11, LEASE), Some(Standing::Kept));
        let mut known = Known::default();
        known.confirm(ago(300), 10, 2, LEASE);
        assert_eq!(known.standing(10, LEASE), Some(Standing::Passed), "a persisted floor never falls");
        assert_eq!(known.standing(11, LEASE), None);
    }

    #[test]
    fn a_clock_that_was_set_or_a_machine_that_slept_costs_a_look() {
        for wall in [SystemTime::now() - LEASE * 2, SystemTime::now() + LEASE] {
            let mut known = Known::default();
            known.confirm(Asked { steady: Instant::now(), wall }, 9, 1, LEASE);
            assert_eq!(known.standing(10, LEASE), None);
        }
    }

    #[test]
    fn a_durable_that_is_found_again_is_not_gone_unless_it_was_let_go() {
        let origin = Origin {
            id: "o".into(),
            stream: "S".into(),
            stream_created: 1,
            durable: "d".into(),
            durable_created: 0,
            filter: "s.>".into(),
            ack_wait: LEASE,
            ordered: false,
        };
        let floors = Floors::default();
        let state = floors.of(&origin);
        let gone = state.gone();
        state.gone.send_replace(true);
        state.found();
        assert!(!*gone.borrow());
        floors.remove("o");
        state.found();
        assert!(*gone.borrow(), "its pull is to end");
        assert!(!*floors.of(&origin).gone().borrow());
    }

    #[test]
    fn a_newer_format_is_an_error() {
        let row = Row { format: 2, ..Row::default() }.encode_to_vec();
        assert!(matches!(Named::decode_from("cd.f.a", &row), Err(Error::Unreadable { .. })));
    }
}
