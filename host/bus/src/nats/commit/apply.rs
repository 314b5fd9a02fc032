//! Applying: what an event has committed becomes visible, each effect once, in order, however often this is begun.
//! Nothing here decides whether an event commits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::HeaderMap;
use futures_util::future::join_all;

use super::{
    expiry,
    lookup::{self, Found, Wanted},
};
use crate::{
    api::{Change, Message, Refused, Timer},
    error::Error,
    nats::{
        NatsBus, headers,
        link::Backoff,
        publish::{Sent, check_size, send},
        streams::Facts,
        timers,
    },
    outgoing::{self, Added, outgoing},
};

/// What waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each for the one before it: what a reader of several subjects sees has the order of the event.
    Strict,
    /// Only those of the same subject for each other, and timers for effects.
    BySubject,
}

/// What is being applied.
#[derive(Debug, Clone, Copy)]
pub(in crate::nats) struct Commit<'a> {
    pub(in crate::nats) event: &'a str,
    /// When it was stored or shortly before, by the server's clock.
    pub(in crate::nats) at: u64,
    /// The event was acked, and acked implies applied, or its stream discarded it before: this decides only where nothing
    /// else tells. What was acked for sure is not applied again at all.
    pub(in crate::nats) acked: bool,
}

/// Why something can't be applied.
#[derive(Debug, thiserror::Error)]
pub(in crate::nats) enum Refusal {
    /// Perhaps it was, long ago.
    #[error("{0}")]
    Unknowable(String),
    #[error("{0}")]
    Final(String),
}

/// What is sent of a message: made once, by whoever weighs it before the commit.
pub(super) struct Ready {
    pub(super) headers: HeaderMap,
    /// Of the message on the wire.
    pub(super) weight: u64,
}

impl Ready {
    pub(super) fn new(message: &Message, event: &str, id: &str) -> Result<Ready, Error> {
        let added = Added { cause: Some(event), message_id: Some(id), expected: None };
        let headers = outgoing::borrowed(message, added)?;
        let weight = outgoing::weight(&headers) + message.data.len() as u64;
        Ok(Ready { headers: headers::map(&headers), weight })
    }
}

/// One thing that a commit does.
enum Deed<'a> {
    Store(&'a Message, Option<Ready>),
    Set(&'a Timer),
    Cancel(&'a str),
}

impl Deed<'_> {
    fn subject(&self) -> &str {
        match self {
            Deed::Store(message, _) => &message.subject,
            Deed::Set(Timer { id, .. }) => id,
            Deed::Cancel(id) => id,
        }
    }
}

/// Stores the effects, sets the timers, cancels what is to be cancelled; gives what was refused. Returns when all is done,
/// however long that takes. `ready`: the effects as they are sent, if that is known.
pub(super) async fn apply(
    bus: &NatsBus,
    commit: Commit<'_>,
    change: &Change,
    ready: Vec<Ready>,
    order: Order,
) -> Vec<Refused> {
    let delivered = commit.event;
    let commit = Commit { event: change.cause(delivered), ..commit };
    let id = |ordinal| change.id(delivered, ordinal);
    let ready = ready.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let effects =
        change.effects.iter().zip(ready).map(|(effect, ready)| Deed::Store(effect, ready)).enumerate();
    let sets = change.timers.iter().map(Deed::Set);
    let later = sets.chain(change.cancels.iter().map(|id| Deed::Cancel(id)));
    let mut refused = all(bus, commit, effects, order, &id).await;
    refused.extend(all(bus, commit, (change.effects.len()..).zip(later), order, &id).await);
    refused.sort_by_key(|r| r.ordinal);
    refused
}

async fn all<'a>(
    bus: &NatsBus,
    commit: Commit<'_>,
    deeds: impl Iterator<Item = (usize, Deed<'a>)>,
    order: Order,
    id: &impl Fn(usize) -> String,
) -> Vec<Refused> {
    let mut groups: Vec<Vec<(usize, Deed<'a>)>> = Vec::new();
    let mut of: HashMap<String, usize> = HashMap::new();
    for (ordinal, deed) in deeds {
        let key = if order == Order::Strict { "" } else { deed.subject() };
        match of.get(key) {
            Some(group) => groups[*group].push((ordinal, deed)),
            None => {
                of.insert(key.to_owned(), groups.len());
                groups.push(vec![(ordinal, deed)]);
            }
        }
    }
    let groups = groups.into_iter().map(|group| async move {
        let mut refused = Vec::new();
        for (ordinal, deed) in group {
            refused.extend(one(bus, commit, ordinal, id(ordinal), deed).await);
        }
        refused
    });
    join_all(groups).await.into_iter().flatten().collect()
}

async fn one(
    bus: &NatsBus,
    commit: Commit<'_>,
    ordinal: usize,
    id: String,
    deed: Deed<'_>,
) -> Option<Refused> {
    let (done, message) = match deed {
        Deed::Store(message, Some(ready)) => {
            (put(bus, commit, &id, message, ready).await.map(|_| ()), message)
        }
        Deed::Store(message, None) => (store(bus, commit, &id, message).await.map(|_| ()), message),
        Deed::Set(timer) => (Box::pin(timers::set(bus, commit, timer)).await, &timer.message),
        Deed::Cancel(id) => {
            Box::pin(timers::cancel(bus, id)).await;
            return None;
        }
    };
    let reason = done.err()?.to_string();
    Box::pin(bury(bus, commit, &id, message, &reason)).await;
    Some(Refused { ordinal, subject: message.subject.clone(), reason })
}

/// Stores the dead letter of a message that can't be stored.
pub(in crate::nats) async fn bury(
    bus: &NatsBus,
    commit: Commit<'_>,
    id: &str,
    message: &Message,
    reason: &str,
) {
    let event = commit.event;
    tracing::warn!(event, id, subject = message.subject, reason, "an effect was refused: dead letter");
    let mut letter = (bus.undeliverable)(message, reason);
    let mut backoff = Backoff::new();
    // The dead letter is all that is left of the effect: it is not given up.
    while let Err(why) = store(bus, commit, &format!("{id}.dead"), &letter).await {
        letter = cut_down(bus, letter).await;
        tracing::error!(
            event,
            subject = letter.subject,
            reason = %why,
            "a dead letter can't be stored, its event waits; make its stream accept it"
        );
        backoff.wait().await;
    }
}

/// What no stream would ever take of a dead letter is left out of it.
async fn cut_down(bus: &NatsBus, mut letter: Message) -> Message {
    let Ok(headers) = outgoing(&letter, Added::default()) else {
        return Message { headers: Vec::new(), ..letter };
    };
    // Room for what we add ourselves.
    let weight = outgoing::weight(&headers) + letter.data.len() as u64 + 512;
    if let Ok(Some(facts)) = target(bus, &letter).await
        && check_size(&bus.link, &facts, &letter.subject, weight).is_err()
    {
        letter.data = bytes::Bytes::new();
    }
    letter
}

/// Stores one message, unless it is there. `Ok(false)`: it was there before the first send. `Err` with the reason: its
/// stream refuses for good.
pub(in crate::nats) async fn store(
    bus: &NatsBus,
    commit: Commit<'_>,
    id: &str,
    message: &Message,
) -> Result<bool, Refusal> {
    let ready = Ready::new(message, commit.event, id).map_err(refused)?;
    put(bus, commit, id, message, ready).await
}

/// The same of what is made ready.
pub(super) async fn put(
    bus: &NatsBus,
    commit: Commit<'_>,
    id: &str,
    message: &Message,
    ready: Ready,
) -> Result<bool, Refusal> {
    let event = commit.event;
    let Ready { headers, weight } = ready;
    // For the first send; seldom there is another.
    let mut headers = Some(headers);
    // Since when it is certain that the target's memory of ids covers every send of this message.
    let mut certain = commit.at;
    let mut looked = None;
    let mut backoff = Backoff::new();
    let mut sent = false;
    loop {
        let facts = match target(bus, message).await {
            Ok(facts) => facts.ok_or_else(|| no_stream(message))?,
            Err(reason) => {
                tracing::debug!(event, subject = message.subject, reason, "the target is not known yet");
                backoff.wait().await;
                continue;
            }
        };
        check_size(&bus.link, &facts, &message.subject, weight).map_err(refused)?;
        if late(bus, &facts, certain) {
            let now = bus.link.server_now();
            let (committed, lasting) = (commit.at, expiry::certain(message));
            let wanted = Wanted { subject: &message.subject, id, committed, lasting, before: looked };
            match Box::pin(lookup::look(bus, &facts, wanted)).await {
                Ok(Found::Yes) => return Ok(sent),
                // A look at much takes long, and meanwhile another host may have stored it: what came since is looked
                // at, too, until a look was quick.
                Ok(Found::No(upto)) => {
                    certain = now;
                    looked = Some(upto);
                    continue;
                }
                Ok(Found::Unknowable) if commit.acked => return Ok(sent),
                Ok(Found::Unknowable) => {
                    return Err(Refusal::Unknowable(format!(
                        "stream {:?} no longer reaches back to the commit, or the message would have expired by now: \
                         whether it was stored is unknown",
                        facts.info.name
                    )));
                }
                Err(e) => {
                    tracing::debug!(event, %e, "can't look for the effect yet");
                    backoff.wait().await;
                    continue;
                }
            }
        }
        let headers = match headers.take() {
            Some(headers) => headers,
            None => Ready::new(message, event, id).map_err(refused)?.headers,
        };
        match send(&bus.link, &message.subject, headers, message.data.clone()).await {
            Sent::Stored(ack) => return Ok(sent || !ack.duplicate),
            Sent::TooLarge => {
                return Err(Refusal::Final(format!(
                    "stream {:?} refused a message of {weight} bytes as too large",
                    facts.info.name
                )));
            }
            Sent::Refused(fault) => return Err(Refusal::Final(fault.to_string())),
            Sent::NoResponders | Sent::WrongLast | Sent::Unknown(_) => {
                sent = true;
                // Perhaps its stream is gone.
                if let Ok(None) = Box::pin(bus.streams.covering_now(&bus.link, &message.subject)).await {
                    return Err(no_stream(message));
                }
                backoff.wait().await;
            }
        }
    }
}

fn refused(e: Error) -> Refusal {
    Refusal::Final(e.to_string())
}

fn no_stream(message: &Message) -> Refusal {
    refused(Error::NoStream { subject: message.subject.clone() })
}

async fn target(bus: &NatsBus, message: &Message) -> Result<Option<Arc<Facts>>, String> {
    let found = bus.streams.covering(&bus.link, &message.subject).await;
    found.map_err(|e| Error::from(e).to_string())
}

/// Half of the window has passed: the stream may soon forget ids that it took since then.
fn late(bus: &NatsBus, facts: &Facts, since: u64) -> bool {
    let passed = Duration::from_nanos(bus.link.server_now().saturating_sub(since));
    passed > facts.info.duplicate_window / 2
}
