//! The two things done to our own stream, with patience: reading a commit point from the leader, and writing it with an
//! expectation.

use async_nats::HeaderMap;
use bytes::Bytes;

use crate::{
    api::{Delivery, Message, Stored},
    error::{CommitError, Error},
    nats::{
        NatsBus, headers,
        jsapi::code,
        link::Backoff,
        publish::{Sent, send},
        read, streams,
    },
    outgoing::{self, Added},
};

/// Left free in a message for what a later version may add.
const SPARE: u64 = 64 * 1024;

/// Reads until there is an answer.
pub(in crate::nats) async fn read(bus: &NatsBus, subject: &str) -> Result<Option<Stored>, Error> {
    let mut backoff = Backoff::new();
    loop {
        match read::last(&bus.link, streams::OURS, subject).await {
            Ok(stored) => return Ok(stored),
            Err(e) if e.is(code::STREAM_NOT_FOUND) => restore(bus).await?,
            Err(e) if e.is_passing() => {
                tracing::debug!(subject, ?e, "no answer from the leader yet");
            }
            Err(e) => return Err(e.into()),
        }
        backoff.wait().await;
    }
}

/// Our stream is no more; it is made anew.
pub(in crate::nats) async fn restore(bus: &NatsBus) -> Result<(), Error> {
    // Revisions begin anew.
    bus.applied.forget();
    streams::restore_ours(&bus.link).await
}

/// A write of one commit point, to be repeated as it is.
pub(super) struct Write {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) data: Bytes,
}

pub(super) enum Attempt {
    /// Stored, with this sequence.
    Done(u64),
    /// The expectation does not hold: somebody wrote meanwhile, perhaps an earlier attempt of this write.
    Refused,
    Unknown,
}

impl Write {
    /// Refuses what is too large.
    pub(super) fn new(
        bus: &NatsBus,
        event: &str,
        subject: &str,
        expected: u64,
        data: Bytes,
    ) -> Result<Write, CommitError> {
        let bare = Message { subject: subject.to_owned(), headers: Vec::new(), data: Bytes::new() };
        // No message id: repeated with one, a write that was stored is answered in different ways by one node and three.
        let added = Added { cause: Some(event), message_id: None, expected: Some(expected) };
        let headers = outgoing::borrowed(&bare, added)?;
        let (size, max) = (outgoing::weight(&headers) + data.len() as u64, max_commit(bus));
        if size > max {
            return Err(CommitError::Unfit(format!(
                "state and effects of event {event} take {size} bytes together, over the limit of {max} for one commit"
            )));
        }
        Ok(Write { subject: subject.to_owned(), headers: headers::map(&headers), data })
    }

    pub(super) async fn attempt(&self, bus: &NatsBus) -> Result<Attempt, Error> {
        self.outcome(send(&bus.link, &self.subject, self.headers.clone(), self.data.clone()).await).await
    }

    /// What a send means for it.
    pub(super) async fn outcome(&self, sent: Sent) -> Result<Attempt, Error> {
        let reason = match sent {
            Sent::Stored(ack) => return Ok(Attempt::Done(ack.sequence)),
            Sent::WrongLast => return Ok(Attempt::Refused),
            Sent::Refused(fault) => return Err(Error::Refused(fault.to_string())),
            Sent::TooLarge => {
                return Err(Error::Refused("the server's limits were lowered meanwhile".into()));
            }
            Sent::NoResponders => "no leader".to_owned(),
            Sent::Unknown(reason) => reason,
        };
        tracing::debug!(subject = self.subject, reason, "a commit's outcome is unknown; reading it");
        Backoff::new().wait().await;
        Ok(Attempt::Unknown)
    }
}

pub(super) fn max_commit(bus: &NatsBus) -> u64 {
    bus.link.max_payload().saturating_sub(SPARE)
}

/// An ack that is lost costs a delivery of an event that is known to have settled.
pub(in crate::nats) async fn ack(delivery: &Delivery) {
    if let Err(e) = delivery.ack().await {
        tracing::debug!(%e, event = delivery.id(), "not acked");
    }
}
