//! Whether a stream holds a message, by its id. All who look into one subject at about the same time share one reader and one
//! set of ids, which grows with the subject: to look for a thousand effects costs as much as to look for one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    api::Stored,
    error::Error,
    nats::{
        NatsBus, forget,
        jsapi::StreamState,
        read,
        reader::{Place, Session},
        streams::{self, Facts},
    },
    outgoing::MESSAGE_ID,
};

/// Leaders of two streams may disagree by this much about the time.
pub(super) const CLOCKS: u64 = 2_000_000_000;
/// A set of ids begins this much earlier than asked for, in nanoseconds: the next who looks may have committed a little
/// earlier.
const EARLIER: u64 = 60_000_000_000;
/// Of one subject, at about 64 bytes each. What is looked for from further back is looked for alone.
const MAX_IDS: usize = 1 << 17;
/// Subjects whose ids are kept.
const MAX_SUBJECTS: usize = 8;
/// Headers asked for ahead.
const AHEAD: usize = 512;
/// A consumer that says nothing for so long may have nothing to say: the leader is asked.
const QUIET: Duration = Duration::from_millis(250);

pub(super) enum Found {
    Yes,
    No(Looked),
    Unknowable,
}

/// How far a stream has been looked through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// The sequence from which on it has not.
    next: u64,
    /// Messages of the subject up to there.
    seen: u64,
}

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub(super) subject: &'a str,
    pub(super) id: &'a str,
    /// When its event committed, by the server's clock.
    pub(super) committed: u64,
    /// How long since then it is there for sure, if it was stored; then it goes by itself.
    pub(super) lasting: Option<Duration>,
    /// Where an earlier look ended.
    pub(super) before: Option<Looked>,
}

/// The sets of ids there are, by stream and subject.
#[derive(Debug, Default)]
pub(in crate::nats) struct Lookups(Mutex<HashMap<(String, String), Kept>>);

#[derive(Debug)]
struct Kept {
    used: Instant,
    index: Arc<tokio::sync::Mutex<Index>>,
}

impl Lookups {
    fn of(&self, stream: &str, subject: &str) -> Arc<tokio::sync::Mutex<Index>> {
        let mut kept = self.lock();
        let key = (stream.to_owned(), subject.to_owned());
        if kept.len() >= MAX_SUBJECTS && !kept.contains_key(&key) {
            // Whoever is at it keeps it until it is done.
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            oldest.map(|key| kept.remove(&key));
        }
        let index = kept.entry(key).or_insert_with(|| Kept { used: Instant::now(), index: Arc::default() });
        index.used = Instant::now();
        index.index.clone()
    }

    /// Drops what nobody has used for a while.
    pub(in crate::nats) fn tidy(&self) {
        self.lock().retain(|_, kept| kept.used.elapsed() < Duration::from_secs(60));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Id = [u8; 16];

fn hashed(id: &str) -> Id {
    let mut hash = Id::default();
    hash.copy_from_slice(&Sha256::digest(id)[..16]);
    hash
}

/// The ids of a subject from some place on.
#[derive(Debug, Default)]
struct Index {
    /// When the stream was created: one made anew is another.
    created: u64,
    /// All that is not older is in it, and all from this sequence on. `None`: nothing yet.
    from: Option<Beginning>,
    /// Up to here, exclusive.
    next: u64,
    passed: VecDeque<Passed>,
    ids: HashSet<Id>,
    /// When the stream was last asked for its state, and that: all up to its end then is in it.
    asked: Option<(Instant, StreamState)>,
}

#[derive(Debug, Clone, Copy)]
struct Beginning {
    time: u64,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Passed {
    sequence: u64,
    time: u64,
    id: Option<Id>,
}

/// Where a look begins.
#[derive(Debug, Clone, Copy)]
enum Since {
    Time(u64),
    Sequence(u64),
}

impl Since {
    fn counts(self, passed: &Passed) -> bool {
        match self {
            Since::Time(time) => passed.time >= time,
            Since::Sequence(sequence) => passed.sequence >= sequence,
        }
    }
}

/// One look.
struct Look {
    id: Id,
    since: Since,
    hit: bool,
    seen: u64,
}

impl Look {
    fn pass(&mut self, passed: &Passed) {
        self.hit |= passed.id == Some(self.id);
        self.seen += u64::from(self.since.counts(passed));
    }
}

impl Index {
    fn covers(&self, since: Since) -> bool {
        self.from.is_some_and(|from| match since {
            Since::Time(time) => from.time <= time,
            Since::Sequence(sequence) => from.sequence <= sequence,
        })
    }

    fn clear(&mut self) {
        *self = Index::default();
    }

    /// Nothing but what was passed is told by it.
    fn note(&mut self, stored: &Stored) -> Option<Passed> {
        if stored.sequence < self.next {
            return None;
        }
        self.next = stored.sequence + 1;
        let headers = &stored.message.headers;
        let id = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(MESSAGE_ID)).map(|(_, v)| hashed(v));
        let passed = Passed { sequence: stored.sequence, time: stored.timestamp, id };
        self.passed.push_back(passed);
        self.ids.extend(id);
        if self.passed.len() > MAX_IDS
            && let Some(oldest) = self.passed.pop_front()
        {
            oldest.id.map(|id| self.ids.remove(&id));
            self.from = Some(Beginning { time: oldest.time + 1, sequence: oldest.sequence + 1 });
        }
        Some(passed)
    }

    /// What it tells by itself. Counting is for those to whom the count matters.
    fn consult(&self, look: &mut Look, count: bool) {
        look.hit = self.ids.contains(&look.id);
        if count {
            look.seen = self.passed.iter().filter(|p| look.since.counts(p)).count() as u64;
        }
    }

    /// Up to the stream's end as its leader has it. Ends early with a hit.
    async fn extend(
        &mut self,
        bus: &NatsBus,
        stream: &str,
        subject: &str,
        look: &mut Look,
        count: bool,
    ) -> Result<StreamState, Error> {
        let asked = Instant::now();
        let answer = streams::info(&bus.link, stream).await?;
        let state = answer.state;
        // Another stream; or what has come and gone since was not seen.
        if self.created != answer.created.0 || state.first_seq > self.next {
            self.clear();
            self.created = answer.created.0;
        }
        if !self.covers(look.since) {
            self.clear();
            self.created = answer.created.0;
            self.begin(bus, stream, subject, look.since, &state).await?;
        }
        self.consult(look, count);
        if !look.hit {
            let last = read::last(&bus.link, stream, subject).await?.map_or(0, |stored| stored.sequence);
            self.read_to(bus, stream, subject, last, look).await?;
        }
        if !look.hit {
            self.next = self.next.max(state.last_seq + 1);
            self.asked = Some((asked, state.clone()));
        }
        Ok(state)
    }

    async fn begin(
        &mut self,
        bus: &NatsBus,
        stream: &str,
        subject: &str,
        since: Since,
        state: &StreamState,
    ) -> Result<(), Error> {
        let from = match since {
            Since::Sequence(sequence) => Beginning { time: u64::MAX, sequence },
            Since::Time(time) => {
                let time = time.saturating_sub(EARLIER);
                let first = read::next(&bus.link, stream, subject, read::From::Time(time)).await?;
                let sequence = first.map_or(state.last_seq + 1, |stored| stored.sequence);
                Beginning { time, sequence }
            }
        };
        (self.from, self.next) = (Some(from), from.sequence);
        Ok(())
    }

    async fn read_to(
        &mut self,
        bus: &NatsBus,
        stream: &str,
        subject: &str,
        last: u64,
        look: &mut Look,
    ) -> Result<(), Error> {
        let mut session: Option<Session> = None;
        // Where no consumer is to be had, as on a work queue, the leader is asked for each.
        let mut refused = false;
        while self.next <= last && !look.hit {
            if session.is_none() && !refused {
                let place = Place {
                    stream: stream.to_owned(),
                    created: self.created,
                    filter: subject.to_owned(),
                    next: self.next,
                    not_before: 0,
                    headers_only: true,
                    ahead: AHEAD,
                };
                match Session::begin(&bus.arc()?, &place).await {
                    Ok(begun) => session = Some(begun),
                    Err(e @ Error::Gone { .. }) => return Err(e),
                    Err(e) => {
                        tracing::debug!(stream, %e, "read without a consumer");
                        refused = true;
                    }
                }
            }
            let next = async {
                match &mut session {
                    Some(session) => tokio::time::timeout(QUIET, session.next()).await.ok(),
                    None => None,
                }
            };
            let stored = match next.await {
                Some(Some(stored)) => Some(stored),
                // Lost: another begins where it ended.
                Some(None) => {
                    session = None;
                    None
                }
                None => None,
            };
            let stored = match stored {
                Some(stored) => stored,
                // The consumer may live where the newest is not yet; or what was last has been deleted.
                None => {
                    match read::next(&bus.link, stream, subject, read::From::Sequence(self.next)).await? {
                        Some(stored) => stored,
                        None => break,
                    }
                }
            };
            if let Some(passed) = self.note(&stored) {
                look.pass(&passed);
            }
        }
        Ok(())
    }
}

/// Whether the stream holds the message, by its id.
pub(super) async fn look(bus: &NatsBus, facts: &Facts, wanted: Wanted<'_>) -> Result<Found, Error> {
    let Wanted { subject, committed, lasting, before, .. } = wanted;
    let name = &facts.info.name;
    let start = committed.saturating_sub(CLOCKS);
    let since = before.map_or(Since::Time(start), |before| Since::Sequence(before.next));
    let mut look = Look { id: hashed(wanted.id), since, hit: false, seen: 0 };
    let count = facts.max_per_subject.is_some();
    let began = Instant::now();

    let index = bus.lookups.of(name, subject);
    let mut index = index.lock().await;
    if index.created == facts.info.created && index.ids.contains(&look.id) {
        return Ok(Found::Yes);
    }
    let state = match &index.asked {
        // Somebody has looked since we came.
        Some((asked, state)) if *asked >= began && index.covers(since) => {
            index.consult(&mut look, count);
            state.clone()
        }
        _ => index.extend(bus, name, subject, &mut look, count).await?,
    };
    drop(index);
    if look.hit {
        return Ok(Found::Yes);
    }
    let seen = before.map_or(0, |before| before.seen) + look.seen;
    let ours = *name == streams::OURS;
    let (untouched, reaches_back) = match before {
        None => (
            state.last_ts.0 < start,
            // Of ours nothing goes but what we forget ourselves.
            ours || state.first_seq <= 1 || (state.first_ts.0 > 0 && state.first_ts.0 <= committed),
        ),
        Some(before) => (state.last_seq < before.next, ours || state.first_seq <= before.next),
    };
    let pushed_out = facts.max_per_subject.is_some_and(|max| seen >= max);
    let passed = Duration::from_nanos(bus.link.server_now().saturating_sub(committed));
    let purged = ours && subject.starts_with(forget::INBOX) && passed > bus.link.timing.trusted();
    let expired = lasting.is_some_and(|lasting| passed > lasting);
    let kept = reaches_back && !pushed_out && !expired && facts.keeps_consumed;
    let sure = !purged && (untouched || kept);
    Ok(if sure { Found::No(Looked { next: state.last_seq + 1, seen }) } else { Found::Unknowable })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::Message;

    fn stored(sequence: u64) -> Stored {
        let headers = vec![(MESSAGE_ID.to_owned(), format!("id {sequence}"))];
        let message = Message { subject: "s".into(), headers, data: Bytes::new() };
        Stored { message, sequence, timestamp: sequence * 10 }
    }

    fn index(upto: u64) -> Index {
        let mut index =
            Index { from: Some(Beginning { time: 10, sequence: 1 }), next: 1, ..Index::default() };
        for sequence in 1..=upto {
            index.note(&stored(sequence)).unwrap();
        }
        index
    }

    fn consulted(index: &Index, id: &str, since: Since) -> (bool, u64) {
        let mut look = Look { id: hashed(id), since, hit: false, seen: 0 };
        index.consult(&mut look, true);
        (look.hit, look.seen)
    }

    #[test]
    fn an_index_knows_what_it_has_passed_and_counts_from_where_it_is_asked() {
        let mut index = index(100);
        assert!(index.note(&stored(100)).is_none(), "comes twice");
        assert_eq!(consulted(&index, "id 7", Since::Time(10)), (true, 100));
        assert_eq!(consulted(&index, "id 101", Since::Time(500)), (false, 51));
        assert_eq!(consulted(&index, "id 101", Since::Sequence(100)), (false, 1));
    }

    #[test]
    fn an_index_that_is_full_says_so_of_what_it_has_dropped() {
        let index = index(MAX_IDS as u64 + 5);
        assert_eq!((index.ids.len(), index.passed.len()), (MAX_IDS, MAX_IDS));
        assert!(!index.covers(Since::Sequence(5)) && index.covers(Since::Sequence(6)));
        assert!(!index.covers(Since::Time(50)) && index.covers(Since::Time(51)));
        assert!(!consulted(&index, "id 5", Since::Sequence(6)).0);
        assert!(consulted(&index, "id 6", Since::Sequence(6)).0);
    }
}
