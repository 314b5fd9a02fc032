//! How far a durable is behind. The server tells what it owes, and not what it could not deliver because the stream had
//! discarded it: that follows from two looks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    consumers,
    jsapi::{
        CallError, ConsumerAnswer, ConsumerConfig, CreateConsumer, StreamAnswer, code, duration_ns, limit,
    },
    link::Link,
    read, streams,
};
use crate::{
    api::Origin,
    backlog::{Backlog, Discarded, Holding, Oldest},
    error::Error,
    subject,
};

/// The server forgets a consumer that only counts after so long, if we could not say that we are done with it.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// What was seen of each durable, by the id of its origin.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    seen: Mutex<HashMap<String, Seen>>,
}

/// As of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Sequence in the stream up to which the durable has delivered or passed over.
    delivered: u64,
    /// Deliveries ever made.
    deliveries: u64,
    /// Never delivered.
    pending: u64,
    /// The stream's last sequence, at that moment or just after.
    last: u64,
    discarded: Discarded,
}

impl Backlogs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn look(&self, link: &Link, origin: &Origin) -> Result<Backlog, Error> {
        let name = || format!("{}/{}", origin.stream, origin.durable);
        let gone = || Error::Gone { what: "durable", name: name() };
        let before = self.lock().get(&origin.id).copied();
        // What has arrived is counted before what is pending: what comes in between makes the count of what was
        // discarded too low, never too high.
        let stream = streams::existing(link, &origin.stream).await?;
        let all = stream.config.subjects.iter().all(|s| subject::covers(&origin.filter, s));
        let first = stream.state.first_seq;
        let arrived = match before {
            Some(seen) if first > seen.delivered + 1 && all => {
                stream.state.last_seq.saturating_sub(seen.last)
            }
            Some(seen) if first > seen.delivered + 1 => {
                arrived(link, origin, first.max(seen.last + 1)).await?
            }
            _ => 0,
        };
        let durable = match consumers::info(link, &origin.stream, &origin.durable).await {
            Ok(durable) => durable,
            Err(e) if e.is(code::CONSUMER_NOT_FOUND) || e.is(code::STREAM_NOT_FOUND) => {
                self.lock().remove(&origin.id);
                return Err(gone());
            }
            Err(e) => return Err(e.into()),
        };
        let id = Origin::identity(&origin.stream, stream.created.0, &origin.durable, durable.created.0);
        if id != origin.id {
            self.lock().remove(&origin.id);
            return Err(gone());
        }
        let stream = streams::existing(link, &origin.stream).await?;
        let discarded = discarded(before, &durable, first, arrived, all);
        let seen = Seen {
            delivered: durable.delivered.stream_seq,
            deliveries: durable.delivered.consumer_seq,
            pending: durable.num_pending,
            last: stream.state.last_seq,
            discarded,
        };
        self.lock().insert(origin.id.clone(), seen);
        let outstanding = durable.num_ack_pending;
        let oldest = if durable.num_pending + outstanding == 0 {
            None
        } else {
            let from = read::From::Sequence(durable.ack_floor.stream_seq + 1);
            let found = read::next(link, &origin.stream, &origin.filter, from).await?;
            found.map(|stored| Oldest { sequence: stored.sequence, timestamp: stored.timestamp })
        };
        Ok(Backlog {
            waiting: durable.num_pending,
            outstanding,
            ack_floor: durable.ack_floor.stream_seq,
            oldest,
            discarded,
            stream: holding(&stream),
        })
    }
}

fn holding(stream: &StreamAnswer) -> Holding {
    let (config, state) = (&stream.config, &stream.state);
    Holding {
        first: state.first_seq,
        last: state.last_seq,
        messages: state.messages,
        bytes: state.bytes,
        max_messages: limit(config.max_msgs),
        max_bytes: limit(config.max_bytes),
        max_age: (config.max_age > 0).then(|| Duration::from_nanos(config.max_age)),
        refuses_new: config.discard == "new",
    }
}

/// What the stream discarded before the durable had its turn. Whatever was never delivered is pending, was delivered by
/// now, or has vanished. `first` is the stream's, and `all` says that the durable wants every message of it.
fn discarded(
    before: Option<Seen>,
    durable: &ConsumerAnswer,
    first: u64,
    arrived: u64,
    all: bool,
) -> Discarded {
    let Some(seen) = before else {
        // Nobody looked before. A new durable begins with the stream's first message, so what lies between was there
        // in its time.
        let vanished = first.saturating_sub(durable.delivered.stream_seq + 1);
        return if all {
            Discarded { known: vanished, unseen: 0 }
        } else {
            Discarded { known: 0, unseen: vanished }
        };
    };
    let mut discarded = seen.discarded;
    // The server lost its last seconds and counts anew.
    if durable.delivered.consumer_seq < seen.deliveries || first <= seen.delivered + 1 {
        return discarded;
    }
    let delivered = durable.delivered.consumer_seq - seen.deliveries;
    discarded.known += (seen.pending + arrived).saturating_sub(durable.num_pending + delivered);
    if !all {
        // Arrived and vanished between two looks.
        discarded.unseen += first.saturating_sub(seen.last + 1);
    }
    discarded
}

/// How many messages that the durable wants are stored from this sequence on.
async fn arrived(link: &Link, origin: &Origin, from: u64) -> Result<u64, Error> {
    let config = ConsumerConfig {
        name: Some(format!("cofferdam-count-{}", link.client.new_inbox().replace('.', "-"))),
        deliver_policy: "by_start_sequence".into(),
        opt_start_seq: Some(from),
        ack_policy: "none".into(),
        max_deliver: -1,
        filter_subject: Some(origin.filter.clone()),
        replay_policy: "instant".into(),
        inactive_threshold: duration_ns(FORGOTTEN),
        mem_storage: true,
        num_replicas: 1,
        ..ConsumerConfig::default()
    };
    let name = config.name.clone().unwrap_or_default();
    let create = CreateConsumer { stream_name: &origin.stream, config: &config, action: "create" };
    let path = format!("CONSUMER.CREATE.{}.{name}", origin.stream);
    let counted: ConsumerAnswer = link.call(&path, &create).await?;
    let delete = format!("CONSUMER.DELETE.{}.{name}", origin.stream);
    let deleted: Result<Value, CallError> = link.call(&delete, &json!({})).await;
    if let Err(e) = deleted {
        tracing::debug!(?e, name, "not deleted; it goes by itself");
    }
    Ok(counted.num_pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(delivered: u64, deliveries: u64, pending: u64) -> ConsumerAnswer {
        let answer = json!({
            "config": {}, "created": "2026-01-01T00:00:00Z", "name": "d", "num_pending": pending,
            "delivered": { "consumer_seq": deliveries, "stream_seq": delivered },
        });
        serde_json::from_value(answer).unwrap()
    }

    fn seen(delivered: u64, deliveries: u64, pending: u64, last: u64) -> Option<Seen> {
        Some(Seen { delivered, deliveries, pending, last, discarded: Discarded { known: 5, unseen: 1 } })
    }

    #[test]
    fn what_vanished_undelivered_is_what_is_missing_from_the_counts() {
        // 10 were pending, 7 came, 3 were delivered, 8 are pending: 6 have vanished.
        let now = discarded(seen(100, 50, 10, 110), &durable(109, 53, 8), 107, 7, true);
        assert_eq!(now, Discarded { known: 11, unseen: 1 });
        // A redelivery is not told from a delivery: too low by one.
        let now = discarded(seen(100, 50, 10, 110), &durable(109, 54, 8), 107, 7, true);
        assert_eq!(now.known, 10);
    }

    #[test]
    fn nothing_vanished_unless_the_stream_begins_behind_what_was_delivered() {
        let same = Discarded { known: 5, unseen: 1 };
        assert_eq!(discarded(seen(100, 50, 10, 110), &durable(100, 50, 3), 101, 0, true), same);
        // And nothing follows from counts that went back.
        assert_eq!(discarded(seen(100, 50, 10, 110), &durable(90, 40, 3), 107, 0, true), same);
    }

    #[test]
    fn the_first_look_knows_only_the_sequences() {
        let first = |all| discarded(None, &durable(100, 50, 3), 111, 0, all);
        assert_eq!(first(true), Discarded { known: 10, unseen: 0 });
        assert_eq!(first(false), Discarded { known: 0, unseen: 10 });
    }

    #[test]
    fn what_came_and_went_between_two_looks_is_known_only_by_its_sequences() {
        let now = discarded(seen(100, 50, 10, 110), &durable(100, 50, 4), 131, 4, false);
        assert_eq!(now, Discarded { known: 15, unseen: 21 });
    }
}
