//! Key-value buckets, laid out as NATS clients lay them out (stream `KV_<bucket>`, subjects `$KV.<bucket>.<key>`), but
//! always read from the leader.

use std::{sync::Arc, time::Duration};

use async_nats::{Message as NatsMessage, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{
    NatsBus, headers,
    jsapi::{ConsumerAnswer, ConsumerConfig, CreateConsumer, StreamConfig, code, duration_ns},
    link::{ANSWER, Backoff},
    publish::{Sent, send},
    read, streams,
};
use crate::{
    api::{Bucket, Entry, Headers, Watch},
    error::Error,
    names,
    outgoing::{self, EXPECTED},
};

const OPERATION: &str = "KV-Operation";
const HEARTBEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(11);

pub(super) struct NatsBucket {
    bus: Arc<NatsBus>,
    name: String,
    stream: String,
}

pub(super) async fn open(bus: Arc<NatsBus>, name: &str) -> Result<Arc<dyn Bucket>, Error> {
    names::check_bucket(name)?;
    let stream = format!("KV_{name}");
    match streams::info(&bus.link, &stream).await {
        Ok(_) => {}
        Err(e) if e.is(code::STREAM_NOT_FOUND) => {
            let config = StreamConfig {
                max_msgs_per_subject: 1,
                discard: "new".into(),
                allow_rollup_hdrs: true,
                allow_direct: true,
                deny_delete: true,
                ..StreamConfig::new(&stream, vec![format!("$KV.{name}.>")])
            };
            match streams::create(&bus.link, &config).await {
                Ok(_) => {}
                // Another host was first.
                Err(e) if e.is(code::STREAM_NAME_IN_USE) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(e) => return Err(e.into()),
    }
    Ok(Arc::new(NatsBucket { bus, name: name.to_owned(), stream }))
}

impl NatsBucket {
    fn subject(&self, key: &str) -> Result<String, Error> {
        names::check_key(&self.name, key)?;
        Ok(names::key_subject(&self.name, key))
    }

    async fn store(
        &self,
        subject: &str,
        value: Bytes,
        operation: Option<&'static str>,
        expected: Option<u64>,
    ) -> Result<u64, Error> {
        let mut headers = Headers::new();
        headers.extend(operation.map(|operation| (OPERATION.into(), operation.into())));
        headers.extend(expected.map(|expected| (EXPECTED.into(), expected.to_string())));
        let (size, max) = (outgoing::weight(&headers) + value.len() as u64, self.bus.link.max_payload());
        let too_large = || Error::TooLarge { subject: subject.to_owned(), size, max };
        if size > max {
            return Err(too_large());
        }
        match send(&self.bus.link, subject, headers::map(&headers), value).await {
            Sent::Stored(ack) => Ok(ack.sequence),
            Sent::WrongLast => Err(Error::WrongLastSequence {
                subject: subject.to_owned(),
                expected: expected.unwrap_or_default(),
            }),
            Sent::TooLarge => Err(too_large()),
            Sent::Refused(fault) => Err(Error::Refused(fault.to_string())),
            Sent::Unknown(reason) => Err(Error::Unavailable(reason)),
            Sent::NoResponders => match streams::info(&self.bus.link, &self.stream).await {
                Err(e) if e.is(code::STREAM_NOT_FOUND) => Err(self.gone()),
                _ => Err(Error::Unavailable(format!("stream {:?} has no leader now", self.stream))),
            },
        }
    }

    fn gone(&self) -> Error {
        Error::Gone { what: "bucket", name: self.name.clone() }
    }

    fn feed(&self, headers_only: bool) -> Feed {
        Feed {
            bus: self.bus.clone(),
            bucket: self.name.clone(),
            stream: self.stream.clone(),
            headers_only,
            session: None,
            last: None,
        }
    }
}

#[async_trait]
impl Bucket for NatsBucket {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let subject = self.subject(key)?;
        let stored = match read::last(&self.bus.link, &self.stream, &subject).await {
            Ok(stored) => stored,
            Err(e) if e.is(code::STREAM_NOT_FOUND) => return Err(self.gone()),
            Err(e) => return Err(e.into()),
        };
        Ok(stored.map(|s| entry(key.to_owned(), &s.message.headers, s.message.data.clone(), s.sequence)))
    }

    async fn put(&self, key: &str, value: Bytes, expected: Option<u64>) -> Result<u64, Error> {
        let subject = self.subject(key)?;
        let first = self.store(&subject, value.clone(), None, expected).await;
        let Err(Error::WrongLastSequence { .. }) = &first else { return first };
        // A deleted key still has a revision; who expects none does not mean that one.
        match self.get(key).await? {
            Some(Entry { value: None, revision, .. }) if expected == Some(0) => {
                self.store(&subject, value, None, Some(revision)).await
            }
            _ => first,
        }
    }

    async fn delete(&self, key: &str, expected: Option<u64>) -> Result<(), Error> {
        let subject = self.subject(key)?;
        self.store(&subject, Bytes::new(), Some("DEL"), expected).await.map(|_| ())
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let mut feed = self.feed(true);
        let listing = async {
            let mut keys = std::collections::BTreeMap::new();
            while let Some((entry, rest)) = feed.next_of_first().await? {
                keys.insert(entry.key, entry.value.is_some());
                if rest == 0 {
                    break;
                }
            }
            Ok(keys.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).collect())
        };
        match tokio::time::timeout(ANSWER * 2, listing).await {
            Ok(keys) => keys,
            Err(_) => Err(Error::Unavailable(format!("bucket {:?} was not listed in time", self.name))),
        }
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, Error> {
        let mut feed = self.feed(false);
        feed.begin().await?;
        Ok(Box::new(feed))
    }
}

fn entry(key: String, headers: &Headers, value: Bytes, revision: u64) -> Entry {
    let gone = |(name, value): &(String, String)| {
        (name == OPERATION && (value == "DEL" || value == "PURGE")) || name == "Nats-Marker-Reason"
    };
    let value = if headers.iter().any(gone) { None } else { Some(value) };
    Entry { key, value, revision }
}

/// Entries as an ephemeral consumer pushes them. One that falls silent, skips or dies is replaced by another that begins
/// where it ended.
struct Feed {
    bus: Arc<NatsBus>,
    bucket: String,
    stream: String,
    headers_only: bool,
    session: Option<Session>,
    /// Revision of the entry given last.
    last: Option<u64>,
}

struct Session {
    subscriber: Subscriber,
    epoch: u64,
    /// How many the consumer has delivered.
    delivered: u64,
    heard: Instant,
    /// How many there were when it began.
    pending: u64,
}

impl Feed {
    async fn begin(&mut self) -> Result<(), Error> {
        let link = &self.bus.link;
        let epoch = link.up().await;
        let inbox = link.client.new_inbox();
        let subscriber = link.client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|e| Error::Unavailable(e.to_string()))?;
        let config = ConsumerConfig {
            deliver_policy: if self.last.is_some() { "by_start_sequence" } else { "last_per_subject" }.into(),
            opt_start_seq: self.last.map(|l| l + 1),
            ack_policy: "none".into(),
            max_deliver: 1,
            filter_subject: Some(format!("$KV.{}.>", self.bucket)),
            replay_policy: "instant".into(),
            deliver_subject: Some(inbox),
            idle_heartbeat: duration_ns(HEARTBEAT),
            inactive_threshold: duration_ns(Duration::from_secs(30)),
            headers_only: self.headers_only,
            mem_storage: true,
            num_replicas: 1,
            ..ConsumerConfig::default()
        };
        let create = CreateConsumer { stream_name: &self.stream, config: &config, action: "" };
        let made = link.call::<ConsumerAnswer>(&format!("CONSUMER.CREATE.{}", self.stream), &create).await;
        let pending = match made {
            Ok(answer) => answer.num_pending,
            Err(e) if e.is(code::STREAM_NOT_FOUND) => {
                return Err(Error::Gone { what: "bucket", name: self.bucket.clone() });
            }
            Err(e) => return Err(e.into()),
        };
        self.session = Some(Session { subscriber, epoch, delivered: 0, heard: Instant::now(), pending });
        Ok(())
    }

    /// The next of those that were there at the beginning, with how many follow. `None` if there was none.
    async fn next_of_first(&mut self) -> Result<Option<(Entry, u64)>, Error> {
        if self.session.is_none() {
            self.begin().await?;
        }
        if self.session.as_ref().is_some_and(|s| s.pending == 0) {
            return Ok(None);
        }
        self.follow().await.map(Some)
    }

    async fn follow(&mut self) -> Result<(Entry, u64), Error> {
        let mut backoff = Backoff::new();
        loop {
            match &mut self.session {
                None => match self.begin().await {
                    Err(Error::Unavailable(reason)) => {
                        tracing::debug!(bucket = self.bucket, reason, "not watching yet");
                        backoff.wait().await;
                    }
                    other => other?,
                },
                Some(session) => match session.next(&self.bus, &self.bucket).await {
                    Some((entry, rest)) => {
                        self.last = Some(entry.revision);
                        return Ok((entry, rest));
                    }
                    None => self.session = None,
                },
            }
        }
    }
}

impl Session {
    /// `None`: this consumer is of no more use.
    async fn next(&mut self, bus: &NatsBus, bucket: &str) -> Option<(Entry, u64)> {
        loop {
            let message = tokio::select! {
                message = self.subscriber.next() => message?,
                () = bus.link.lost(self.epoch) => return None,
                () = tokio::time::sleep_until(self.heard + SILENCE) => return None,
            };
            self.heard = Instant::now();
            if let Some(status) = message.status {
                let told = message.headers.as_ref().and_then(|h| h.get("Nats-Last-Consumer"));
                let told = told.and_then(|v| v.as_str().parse::<u64>().ok());
                if status != StatusCode::IDLE_HEARTBEAT || told.is_some_and(|t| t != self.delivered) {
                    return None;
                }
                continue;
            }
            let (sequence, delivered, rest) = position(&message)?;
            self.delivered += 1;
            if delivered != self.delivered {
                return None;
            }
            let Some(key) = message.subject.strip_prefix(&format!("$KV.{bucket}.")) else { continue };
            let headers = headers::incoming(message.headers.as_ref());
            return Some((entry(key.to_owned(), &headers, message.payload.clone(), sequence), rest));
        }
    }
}

/// Stream sequence, consumer sequence and how many follow, from the reply subject.
fn position(message: &NatsMessage) -> Option<(u64, u64, u64)> {
    let reply = super::acks::Reply::of(message)?;
    Some((reply.sequence, reply.delivery, reply.pending))
}

#[async_trait]
impl Watch for Feed {
    async fn next(&mut self) -> Result<Entry, Error> {
        self.follow().await.map(|(entry, _)| entry)
    }
}
