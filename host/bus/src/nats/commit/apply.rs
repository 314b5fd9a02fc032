//! Applying: what an event has committed becomes visible, each effect once, in order, however often this is begun.
//! Nothing here decides whether an event commits.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    api::{Message, Refused},
    error::Error,
    nats::{
        NatsBus, headers,
        jsapi::CallError,
        link::Backoff,
        publish::{Sent, check_size, send},
        read, streams,
        streams::Facts,
    },
    outgoing::{self, Added, MESSAGE_ID, outgoing},
};

/// Leaders of two streams may disagree by this much about the time.
const CLOCKS: u64 = 2_000_000_000;

/// What waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each effect for the one before it: what a reader of several subjects sees has the order of the event.
    Strict,
    /// Only those of the same subject for each other.
    BySubject,
}

/// Stores the effects of `event`, which committed at `committed` (server's clock), and gives those that were refused.
/// Returns when all is done, however long that takes.
pub(super) async fn apply(
    bus: &NatsBus,
    event: &str,
    effects: &[Message],
    committed: u64,
    order: Order,
) -> Vec<Refused> {
    let mut by_subject: Vec<(&str, Vec<(usize, &Message)>)> = Vec::new();
    for (ordinal, effect) in effects.iter().enumerate() {
        let together = |subject: &str| order == Order::Strict || subject == effect.subject;
        match by_subject.iter_mut().find(|(subject, _)| together(subject)) {
            Some((_, group)) => group.push((ordinal, effect)),
            None => by_subject.push((&effect.subject, vec![(ordinal, effect)])),
        }
    }
    let groups = by_subject.into_iter().map(|(_, group)| async move {
        let mut refused = Vec::new();
        for (ordinal, effect) in group {
            refused.extend(one(bus, event, ordinal, effect, committed).await);
        }
        refused
    });
    let mut refused: Vec<Refused> = join_all(groups).await.into_iter().flatten().collect();
    refused.sort_by_key(|r| r.ordinal);
    refused
}

async fn one(
    bus: &NatsBus,
    event: &str,
    ordinal: usize,
    effect: &Message,
    committed: u64,
) -> Option<Refused> {
    let id = format!("{event}.{ordinal}");
    let Err(reason) = store(bus, event, &id, effect, committed).await else { return None };
    tracing::warn!(event, ordinal, subject = effect.subject, reason, "an effect was refused: dead letter");
    let mut letter = (bus.undeliverable)(effect, &reason);
    let mut backoff = Backoff::new();
    // The dead letter is all that is left of the effect: it is not given up.
    while let Err(why) = store(bus, event, &format!("{id}.dead"), &letter, committed).await {
        letter = cut_down(bus, letter).await;
        tracing::error!(
            event,
            subject = letter.subject,
            reason = why,
            "a dead letter can't be stored, its event waits; make its stream accept it"
        );
        backoff.wait().await;
    }
    Some(Refused { ordinal, subject: effect.subject.clone(), reason })
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
pub(super) async fn store(
    bus: &NatsBus,
    event: &str,
    id: &str,
    message: &Message,
    committed: u64,
) -> Result<bool, String> {
    let added = Added { cause: Some(event), message_id: Some(id), expected: None };
    let headers = outgoing(message, added).map_err(|e| e.to_string())?;
    let weight = outgoing::weight(&headers) + message.data.len() as u64;
    let map = headers::map(&headers);
    // Since when it is certain that the target's memory of ids covers every send of this message.
    let mut certain = committed;
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
        check_size(&bus.link, &facts, &message.subject, weight).map_err(|e| e.to_string())?;
        if late(bus, &facts, certain) {
            let now = bus.link.server_now();
            match look(bus, &facts, message, id, committed).await {
                Ok(Found::Yes) => return Ok(sent),
                Ok(Found::No) => certain = now,
                Ok(Found::Unknowable) => {
                    return Err(format!(
                        "stream {:?} no longer reaches back to the commit: whether it had the message is unknown",
                        facts.info.name
                    ));
                }
                Err(e) => {
                    tracing::debug!(event, ?e, "can't look for the effect yet");
                    backoff.wait().await;
                    continue;
                }
            }
        }
        match send(&bus.link, &message.subject, map.clone(), message.data.clone()).await {
            Sent::Stored(ack) => return Ok(sent || !ack.duplicate),
            Sent::TooLarge => {
                return Err(format!(
                    "stream {:?} refused a message of {weight} bytes as too large",
                    facts.info.name
                ));
            }
            Sent::Refused(fault) => return Err(fault.to_string()),
            Sent::NoResponders | Sent::WrongLast | Sent::Unknown(_) => {
                sent = true;
                // Perhaps its stream is gone.
                if let Ok(None) = bus.streams.covering_now(&bus.link, &message.subject).await {
                    return Err(no_stream(message));
                }
                backoff.wait().await;
            }
        }
    }
}

fn no_stream(message: &Message) -> String {
    Error::NoStream { subject: message.subject.clone() }.to_string()
}

async fn target(bus: &NatsBus, message: &Message) -> Result<Option<std::sync::Arc<Facts>>, String> {
    let found = bus.streams.covering(&bus.link, &message.subject).await;
    found.map_err(|e| Error::from(e).to_string())
}

/// Half of the window has passed: the stream may soon forget ids that it took since then.
fn late(bus: &NatsBus, facts: &Facts, since: u64) -> bool {
    let passed = Duration::from_nanos(bus.link.server_now().saturating_sub(since));
    passed > facts.info.duplicate_window / 2
}

enum Found {
    Yes,
    No,
    Unknowable,
}

/// Whether the stream holds the message, by its id.
async fn look(
    bus: &NatsBus,
    facts: &Facts,
    message: &Message,
    id: &str,
    committed: u64,
) -> Result<Found, CallError> {
    let name = &facts.info.name;
    let state = streams::state(&bus.link, name).await?;
    let since = committed.saturating_sub(CLOCKS);
    let mut from = read::From::Time(since);
    let mut seen = 0u64;
    while let Some(stored) = read::next(&bus.link, name, &message.subject, from).await? {
        if stored.message.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(MESSAGE_ID) && v == id) {
            return Ok(Found::Yes);
        }
        seen += 1;
        if stored.sequence >= state.last_seq {
            break;
        }
        from = read::From::Sequence(stored.sequence + 1);
    }
    let untouched = state.last_ts.0 < since;
    let reaches_back = state.first_seq <= 1 || (state.first_ts.0 > 0 && state.first_ts.0 <= committed);
    let pushed_out = facts.max_per_subject.is_some_and(|max| seen >= max);
    let sure = untouched || (reaches_back && !pushed_out && facts.keeps_consumed);
    Ok(if sure { Found::No } else { Found::Unknowable })
}
