//! Timers: setting and cancelling them, which is part of applying a commit. [`forward`] stores what is due.
//!
//! The message on `cd.t.<id>` is the state of a timer, and changes only by compare-and-set: none, then a schedule of the
//! server's, then a mark that it has fired or was cancelled. A schedule that is due makes way for a message on
//! `cd.d.<id>`, which the first forwarder to come marks as fired before it stores what the message carries. So a
//! schedule that is set again by a late run, while its mark is there, is refused; one that is set again before there is a
//! mark fires again, and meets the mark then.

mod forward;

use std::time::Duration;

pub(super) use forward::start;

use super::{
    NatsBus,
    commit::{
        apply::{Commit, Refusal},
        format::Due,
        store,
    },
    headers,
    jsapi::nanos,
    link::Backoff,
    publish::{Sent, send},
    read,
};
use crate::{
    api::{Stored, Timer},
    error::Error,
    outgoing::{EXPECTED, TTL},
};

const SCHEDULE: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";
/// On a mark: `fired` or `cancelled`.
const MARK: &str = "Cofferdam-Timer";
const FIRED: &str = "fired";
const CANCELLED: &str = "cancelled";

/// How long a mark is kept after the timer's time: a run of its event that comes later can't know whether it was set.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// A mark that has less than this to live is not relied upon.
const SLACK: Duration = Duration::from_secs(60 * 60);
/// The longest time to live that is asked for; the server takes no more than 292 years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// A schedule this near to its time may have fired already, unseen.
const NEAR: Duration = Duration::from_secs(5);
/// The server counts nanoseconds in 63 bits; a schedule past that (in 2262) would fire at once.
const LAST: u64 = i64::MAX as u64;

fn state_subject(id: &str) -> String {
    format!("cd.t.{id}")
}

fn due_subject(id: &str) -> String {
    format!("cd.d.{id}")
}

/// What is on a timer's subject.
#[derive(Debug, PartialEq, Eq)]
enum State {
    None,
    Set {
        sequence: u64,
        at: u64,
    },
    /// Since then, by the server's clock.
    Fired {
        since: u64,
    },
    Cancelled {
        sequence: u64,
        ttl: String,
    },
}

impl State {
    fn of(stored: Option<Stored>) -> Result<State, Error> {
        let Some(stored) = stored else { return Ok(State::None) };
        let header = |name: &str| {
            let mut headers = stored.message.headers.iter();
            headers.find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        };
        let sequence = stored.sequence;
        match (header(MARK), header(SCHEDULE)) {
            (Some(FIRED), _) => Ok(State::Fired { since: stored.timestamp }),
            (Some(CANCELLED), _) => {
                Ok(State::Cancelled { sequence, ttl: header(TTL).unwrap_or_default().to_owned() })
            }
            (None, Some(schedule)) => {
                let at = schedule.strip_prefix("@at ").unwrap_or_default();
                let at = async_nats::datetime::parse_rfc3339(at).map_or(0, |at| nanos(&at));
                Ok(State::Set { sequence, at })
            }
            _ => Err(Error::Unreadable {
                subject: stored.message.subject.clone(),
                reason: "it is neither a schedule nor a mark that this version knows".into(),
            }),
        }
    }
}

async fn state(bus: &NatsBus, id: &str) -> Result<State, Error> {
    State::of(store::read(bus, &state_subject(id)).await?)
}

/// Sets a timer, unless it was set.
pub(super) async fn set(bus: &NatsBus, commit: Commit<'_>, timer: &Timer) -> Result<(), Refusal> {
    let refused = |why: String| Refusal::Final(format!("timer {:?}: {why}", timer.id));
    let subject = state_subject(&timer.id);
    let at = read::rfc3339(timer.at.min(LAST)).map_err(|e| refused(Error::from(e).to_string()))?;
    let headers = [(SCHEDULE, format!("@at {at}")), (TARGET, due_subject(&timer.id)), (EXPECTED, "0".into())];
    let headers = headers::map(&headers);
    let data = Due::encoded(commit.event, &timer.message);
    let due = timer.at.max(commit.at);
    let mut backoff = Backoff::new();
    loop {
        if bus.link.server_now() > due.saturating_add(nanoseconds(REMEMBERED - SLACK)) {
            if commit.acked || is_known(bus, &timer.id).await.map_err(|e| refused(e.to_string()))? {
                return Ok(());
            }
            return Err(Refusal::Unknowable(format!(
                "timer {:?} was due at {at}, too long ago to know whether it has fired",
                timer.id
            )));
        }
        match send(&bus.link, &subject, headers.clone(), data.clone()).await {
            // Refused: it is set, or was.
            Sent::Stored(_) | Sent::WrongLast => return Ok(()),
            Sent::TooLarge => return Err(refused("it is over the server's max_payload".into())),
            Sent::Refused(fault) => return Err(refused(fault.to_string())),
            Sent::NoResponders => tracing::debug!(subject, "not set yet: no leader"),
            Sent::Unknown(reason) => tracing::debug!(subject, reason, "perhaps not set"),
        }
        backoff.wait().await;
        // Waits for the leader, and restores our stream.
        store::read(bus, &subject).await.map_err(|e| refused(e.to_string()))?;
    }
}

/// Whether a timer that is long due is waiting, has fired or was cancelled.
async fn is_known(bus: &NatsBus, id: &str) -> Result<bool, Error> {
    Ok(store::read(bus, &due_subject(id)).await?.is_some()
        || store::read(bus, &state_subject(id)).await?.is_some())
}

/// Cancels a timer, unless it has fired. Whether there is such a timer does not matter: if it is set later, it is
/// cancelled already.
pub(super) async fn cancel(bus: &NatsBus, id: &str) {
    let mut backoff = Backoff::new();
    loop {
        let tried = match state(bus, id).await {
            Ok(State::Fired { .. }) => return,
            Ok(found) => try_cancel(bus, id, &found).await,
            Err(e) => Err(e),
        };
        match tried {
            Ok(true) => return,
            Ok(false) => {}
            // Our own stream refuses, or holds what a newer version wrote: not given up.
            Err(e) => {
                tracing::error!(timer = id, %e, "a timer can't be cancelled, its event waits");
                backoff.wait().await;
            }
        }
    }
}

/// Whether it is cancelled for sure.
async fn try_cancel(bus: &NatsBus, id: &str, found: &State) -> Result<bool, Error> {
    let now = bus.link.server_now();
    // A message that fires takes what is on the schedule's subject with it, and it may be on its way while the server
    // takes our mark for it. What is written after the mark comes after such a message: so it is written twice.
    let sure = !matches!(found, State::Set { at, .. } if *at < now.saturating_add(nanoseconds(NEAR)));
    let (expected, ttl) = match found {
        State::None => (0, lifetime(0)),
        State::Set { sequence, at } => (*sequence, lifetime(at.saturating_sub(now))),
        State::Cancelled { sequence, ttl } => (*sequence, ttl.clone()),
        State::Fired { .. } => return Ok(true),
    };
    Ok(write(bus, id, CANCELLED, ttl, expected).await? && sure)
}

/// Marks a timer as fired, unless it was cancelled. `Some`: since when the mark is there.
async fn fire(bus: &NatsBus, id: &str) -> Result<Option<u64>, Error> {
    loop {
        let expected = match state(bus, id).await? {
            State::Fired { since } => return Ok(Some(since)),
            State::Cancelled { .. } => return Ok(None),
            // Set again before there was a mark.
            State::Set { sequence, .. } => sequence,
            State::None => 0,
        };
        let before = bus.link.server_now();
        if write(bus, id, FIRED, lifetime(0), expected).await? {
            return Ok(Some(before));
        }
    }
}

/// Writes a mark. `false`: there is something else by now, or it is not known; look again.
async fn write(bus: &NatsBus, id: &str, mark: &str, ttl: String, expected: u64) -> Result<bool, Error> {
    let headers = [(MARK, mark.to_owned()), (TTL, ttl), (EXPECTED, expected.to_string())];
    match send(&bus.link, &state_subject(id), headers::map(&headers), Default::default()).await {
        Sent::Stored(_) => return Ok(true),
        Sent::WrongLast => return Ok(false),
        Sent::Refused(fault) => return Err(Error::Refused(fault.to_string())),
        Sent::TooLarge => return Err(Error::Refused("the server's max_payload is next to nothing".into())),
        Sent::NoResponders => tracing::debug!(timer = id, mark, "not marked yet: no leader"),
        Sent::Unknown(reason) => tracing::debug!(timer = id, mark, reason, "perhaps not marked"),
    }
    Backoff::new().wait().await;
    Ok(false)
}

/// Of a mark whose timer is due in so many nanoseconds.
fn lifetime(until: u64) -> String {
    format!("{}s", (Duration::from_nanos(until) + REMEMBERED).min(LONGEST).as_secs())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::Message;

    fn held(headers: &[(&str, &str)]) -> Option<Stored> {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let message = Message { subject: "cd.t.a".into(), headers, data: Bytes::new() };
        Some(Stored { message, sequence: 7, timestamp: 42 })
    }

    #[test]
    fn the_state_of_a_timer_is_read_from_its_headers() {
        let at = 1_700_000_000_000_000_042;
        let schedule = format!("@at {}", read::rfc3339(at).unwrap());
        let ttl = "9s".to_owned();
        for (stored, state) in [
            (None, State::None),
            (held(&[(SCHEDULE, &schedule), (TARGET, "cd.d.a")]), State::Set { sequence: 7, at }),
            (held(&[(MARK, FIRED), (TTL, "9s")]), State::Fired { since: 42 }),
            (held(&[(MARK, CANCELLED), (TTL, "9s")]), State::Cancelled { sequence: 7, ttl }),
        ] {
            assert_eq!(State::of(stored), Ok(state));
        }
        for unknown in [held(&[]), held(&[(MARK, "paused")])] {
            assert!(matches!(State::of(unknown), Err(Error::Unreadable { .. })));
        }
    }

    #[test]
    fn a_mark_outlives_its_timer_by_a_day() {
        assert_eq!(lifetime(0), "86400s");
        assert_eq!(lifetime(60_000_000_000), "86460s");
        assert_eq!(lifetime(u64::MAX), "3153600000s");
    }
}
