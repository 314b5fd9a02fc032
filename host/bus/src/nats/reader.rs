//! Reading a stream from any place on, consuming nothing. The leader's word decides what there is; an ephemeral consumer
//! brings it faster and tells of what is new. One that falls silent, skips or dies is replaced by another that begins
//! where it ended.

use std::{sync::Arc, time::Duration};

use async_nats::{Message as NatsMessage, StatusCode, Subscriber};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    NatsBus,
    acks::Reply,
    headers,
    jsapi::{ConsumerAnswer, ConsumerConfig, CreateConsumer, duration_ns},
    link::Backoff,
    read, streams,
};
use crate::{
    api::{Message, Reader, Start, Stored},
    error::Error,
    subject,
};

/// Asked for ahead of the caller; of messages as large as a server takes by default, 64 MiB.
const AHEAD: usize = 64;
/// A pull request lapses after this long and is made again, so one that got lost costs no more.
const EXPIRES: Duration = Duration::from_secs(30);
/// The server tells that it is alive this often while a pull waits.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Two heartbeats missed: the pull is taken for lost.
const SILENCE: Duration = Duration::from_secs(11);
/// The server forgets a consumer that nobody has asked for so long, if we could not say that we are done with it.
const FORGOTTEN: Duration = Duration::from_secs(30);

pub(super) async fn open(
    bus: Arc<NatsBus>,
    stream: &str,
    filter: &str,
    start: Start,
) -> Result<Box<dyn Reader>, Error> {
    subject::check_filter(filter)?;
    let found = streams::existing(&bus.link, stream).await?;
    let end = found.state.last_seq + 1;
    let (next, not_before) = match start {
        Start::Sequence(sequence) => (sequence.max(1), 0),
        Start::End => (end, 0),
        Start::Time(time) => {
            let first = read::next(&bus.link, stream, filter, read::From::Time(time)).await?;
            (first.map_or(end, |stored| stored.sequence), time)
        }
    };
    let stream = stream.to_owned();
    let (created, filter) = (found.created.0, filter.to_owned());
    let place = Place { stream, created, filter, next, not_before, headers_only: false, ahead: AHEAD };
    Ok(Box::new(Reading { bus, place, session: None }))
}

/// What is read, and how far.
pub(super) struct Place {
    pub(super) stream: String,
    /// One that is made anew under the same name is another.
    pub(super) created: u64,
    pub(super) filter: String,
    /// Everything before this sequence has been given.
    pub(super) next: u64,
    /// What is older does not count, in nanoseconds since the epoch.
    pub(super) not_before: u64,
    pub(super) headers_only: bool,
    /// How many are asked for ahead of the caller.
    pub(super) ahead: usize,
}

impl Place {
    /// Notes that the message was come by; `None` if it isn't to be given.
    fn pass(&mut self, stored: Stored) -> Option<Stored> {
        if stored.sequence < self.next {
            return None;
        }
        self.next = stored.sequence + 1;
        (stored.timestamp >= self.not_before).then_some(stored)
    }
}

struct Reading {
    bus: Arc<NatsBus>,
    place: Place,
    session: Option<Session>,
}

#[async_trait]
impl Reader for Reading {
    async fn next(&mut self) -> Result<Stored, Error> {
        let mut backoff = Backoff::new();
        loop {
            let Some(session) = &mut self.session else {
                self.begin(&mut backoff).await?;
                continue;
            };
            match session.next().await {
                Some(stored) => {
                    if let Some(stored) = self.place.pass(stored) {
                        return Ok(stored);
                    }
                }
                None => {
                    self.session = None;
                    backoff.wait().await;
                }
            }
        }
    }

    async fn stored(&mut self) -> Result<Option<Stored>, Error> {
        let mut backoff = Backoff::new();
        loop {
            // What has come already, and else what the leader says: a consumer may live where the newest is not yet.
            match self.session.as_mut().and_then(|session| session.next().now_or_never()) {
                Some(Some(stored)) => {
                    if let Some(stored) = self.place.pass(stored) {
                        return Ok(Some(stored));
                    }
                    continue;
                }
                Some(None) => self.session = None,
                None => {}
            }
            match self.ask_leader().await {
                Ok(None) => return Ok(None),
                Ok(Some(stored)) => {
                    if let Some(stored) = self.place.pass(stored) {
                        return Ok(Some(stored));
                    }
                }
                Err(Error::Unavailable(reason)) => {
                    tracing::debug!(stream = self.place.stream, reason, "not read yet");
                    backoff.wait().await;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

impl Reading {
    async fn ask_leader(&mut self) -> Result<Option<Stored>, Error> {
        let Place { stream, created, filter, next, .. } = &self.place;
        let from = read::From::Sequence(*next);
        let found = match read::next(&self.bus.link, stream, filter, from).await {
            // After the read: it was this stream that answered.
            Ok(found) => check(&self.bus, stream, *created).await.map(|()| found)?,
            Err(e) => {
                check(&self.bus, stream, *created).await?;
                return Err(e.into());
            }
        };
        if found.is_some() && self.session.is_none() {
            // There may be many. Where no consumer is to be had, as on a work queue, the leader is asked for each.
            match Session::begin(&self.bus, &self.place).await {
                Ok(session) => self.session = Some(session),
                Err(e @ Error::Gone { .. }) => return Err(e),
                Err(e) => tracing::debug!(stream, %e, "read without a consumer"),
            }
        }
        Ok(found)
    }

    /// Waits out what passes.
    async fn begin(&mut self, backoff: &mut Backoff) -> Result<(), Error> {
        match Session::begin(&self.bus, &self.place).await {
            Ok(session) => self.session = Some(session),
            Err(Error::Unavailable(reason)) => {
                tracing::debug!(stream = self.place.stream, reason, "not reading yet");
                backoff.wait().await;
            }
            Err(Error::Refused(reason)) => {
                let stream = &self.place.stream;
                let why = format!("stream {stream:?} can't be followed, only read up to its end: {reason}");
                return Err(Error::Refused(why));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// Whether the stream is still the one that we read.
async fn check(bus: &NatsBus, stream: &str, created: u64) -> Result<(), Error> {
    let found = streams::existing(&bus.link, stream).await?;
    if found.created.0 == created { Ok(()) } else { Err(streams::gone(stream)) }
}

/// A consumer, and the pulls that it answers.
pub(super) struct Session {
    bus: Arc<NatsBus>,
    /// Stream and consumer, as in calls.
    consumer: String,
    inbox: String,
    ahead: usize,
    subscriber: Subscriber,
    epoch: u64,
    /// Asked for and not yet there.
    expected: usize,
    /// How many the consumer has delivered.
    delivered: u64,
    heard: Instant,
}

impl Session {
    pub(super) async fn begin(bus: &Arc<NatsBus>, place: &Place) -> Result<Session, Error> {
        let epoch = bus.link.up().await;
        let inbox = bus.link.client.new_inbox();
        let subscriber = bus.link.client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|e| Error::Unavailable(e.to_string()))?;
        let config = ConsumerConfig {
            deliver_policy: "by_start_sequence".into(),
            opt_start_seq: Some(place.next),
            ack_policy: "none".into(),
            max_deliver: -1,
            filter_subject: Some(place.filter.clone()),
            replay_policy: "instant".into(),
            inactive_threshold: duration_ns(FORGOTTEN),
            headers_only: place.headers_only,
            mem_storage: true,
            num_replicas: 1,
            ..ConsumerConfig::default()
        };
        let create = CreateConsumer { stream_name: &place.stream, config: &config, action: "" };
        let made =
            bus.link.call::<ConsumerAnswer>(&format!("CONSUMER.CREATE.{}", place.stream), &create).await;
        // Also where there is no consumer: was it for the stream?
        check(bus, &place.stream, place.created).await?;
        let consumer = format!("{}.{}", place.stream, made?.name);
        let (bus, heard) = (bus.clone(), Instant::now());
        let ahead = place.ahead;
        Ok(Session { bus, consumer, inbox, ahead, subscriber, epoch, expected: 0, delivered: 0, heard })
    }

    /// `None`: this consumer is of no more use.
    pub(super) async fn next(&mut self) -> Option<Stored> {
        loop {
            self.ask_more().await.ok()?;
            let message = tokio::select! {
                biased;
                message = self.subscriber.next() => message?,
                () = self.bus.link.lost(self.epoch) => return None,
                () = tokio::time::sleep_until(self.heard + SILENCE) => return None,
            };
            self.heard = Instant::now();
            if message.status.is_some() {
                self.status(&message)?;
                continue;
            }
            self.expected = self.expected.saturating_sub(1);
            let reply = Reply::of(&message)?;
            self.delivered += 1;
            if reply.delivery != self.delivered {
                return None;
            }
            let (headers, subject) =
                (headers::incoming(message.headers.as_ref()), message.subject.to_string());
            let stored = Message { subject, headers, data: message.payload };
            return Some(Stored { message: stored, sequence: reply.sequence, timestamp: reply.timestamp });
        }
    }

    /// Keeps half or more of what may be ahead asked for.
    async fn ask_more(&mut self) -> Result<(), Error> {
        if self.expected * 2 > self.ahead {
            return Ok(());
        }
        let more = self.ahead - self.expected;
        let body = json!({
            "batch": more,
            "expires": duration_ns(EXPIRES),
            "idle_heartbeat": duration_ns(HEARTBEAT),
        });
        let to = format!("$JS.API.CONSUMER.MSG.NEXT.{}", self.consumer);
        let sent =
            self.bus.link.client.publish_with_reply(to, self.inbox.clone(), body.to_string().into()).await;
        sent.map_err(|e| Error::Unavailable(e.to_string()))?;
        self.expected += more;
        self.heard = Instant::now();
        Ok(())
    }

    /// What the server says instead of a message; `None` ends the session.
    fn status(&mut self, message: &NatsMessage) -> Option<()> {
        match message.status? {
            StatusCode::IDLE_HEARTBEAT => {}
            StatusCode::TIMEOUT => {
                // A pull that lapsed tells how many messages it still owed.
                let owed = message.headers.as_ref()?.get("Nats-Pending-Messages")?;
                self.expected = self.expected.saturating_sub(owed.as_str().parse().ok()?);
            }
            // The consumer or its leader is gone.
            _ => return None,
        }
        Some(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (bus, call) = (self.bus.clone(), format!("CONSUMER.DELETE.{}", self.consumer));
        // Without a runtime there is no connection either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(e) = bus.link.call::<Value>(&call, &json!({})).await {
                tracing::debug!(?e, call, "left to the server to forget");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_or_is_too_old_is_not_given() {
        let (stream, filter) = ("S".to_owned(), ">".to_owned());
        let mut place =
            Place { stream, created: 1, filter, next: 3, not_before: 100, headers_only: false, ahead: 1 };
        let message = Message { subject: "s".into(), headers: Vec::new(), data: Default::default() };
        let mut given = Vec::new();
        for (sequence, timestamp) in [(2, 200), (3, 99), (5, 100), (4, 200), (5, 100), (6, 200)] {
            let stored = Stored { message: message.clone(), sequence, timestamp };
            given.extend(place.pass(stored).map(|stored| stored.sequence));
        }
        assert_eq!((given, place.next), (vec![5, 6], 7));
    }
}
