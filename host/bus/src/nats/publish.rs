//! One publish: what a message weighs, who stores it, and what the server said.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{
    NatsBus, headers,
    jsapi::{self, CallError, Fault, PubAck, code},
    link::{Link, Silence},
    streams::Facts,
};
use crate::{
    api::{Message, Publish, PublishAck},
    error::Error,
    outgoing::{self, Added, check_subject, outgoing},
};

/// What became of a send.
#[derive(Debug)]
pub(super) enum Sent {
    Stored(PublishAck),
    /// The expectation did not hold; nothing was stored by this send.
    WrongLast,
    NoResponders,
    TooLarge,
    /// No, for good.
    Refused(Fault),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

/// Sends once and waits for the answer.
pub(super) async fn send(link: &Link, subject: &str, headers: HeaderMap, data: Bytes) -> Sent {
    let answer = match link.ask(subject.to_owned(), Some(headers), data).await {
        Ok(answer) => answer,
        Err(Silence::NoResponders) => return Sent::NoResponders,
        Err(Silence::TooLarge) => return Sent::TooLarge,
        Err(Silence::Unknown(reason)) => return Sent::Unknown(reason),
    };
    match jsapi::parse::<PubAck>(&answer.payload) {
        Ok(ack) => {
            Sent::Stored(PublishAck { stream: ack.stream, sequence: ack.seq, duplicate: ack.duplicate })
        }
        Err(CallError::Fault(fault)) => match fault.err_code {
            code::WRONG_LAST_SEQUENCE => Sent::WrongLast,
            code::MESSAGE_TOO_LARGE => Sent::TooLarge,
            _ if fault.is_passing() => Sent::Unknown(fault.to_string()),
            _ => Sent::Refused(fault),
        },
        Err(e) => Sent::Unknown(Error::from(e).to_string()),
    }
}

/// Whether the server and the stream take a message of this weight.
pub(super) fn check_size(link: &Link, facts: &Facts, subject: &str, weight: u64) -> Result<(), Error> {
    let max = facts.info.max_message_size.unwrap_or(u64::MAX).min(link.max_payload());
    if weight > max {
        return Err(Error::TooLarge { subject: subject.to_owned(), size: weight, max });
    }
    Ok(())
}

/// The bus's `publish`.
pub(super) async fn publish(bus: &NatsBus, message: Message, how: Publish) -> Result<PublishAck, Error> {
    let Message { subject, data, .. } = &message;
    check_subject(subject)?;
    let added = Added {
        message_id: how.message_id.as_deref(),
        expected: how.expected_last_subject_sequence,
        ..Added::default()
    };
    let headers = outgoing(&message, added)?;
    let no_stream = || Error::NoStream { subject: subject.clone() };
    // Asked first, because a plain subscriber to the subject would swallow the publish without an answer.
    let facts = bus.streams.covering(&bus.link, subject).await?.ok_or_else(no_stream)?;
    let size = outgoing::weight(&headers) + data.len() as u64;
    check_size(&bus.link, &facts, subject, size)?;
    match send(&bus.link, subject, headers::map(&headers), data.clone()).await {
        Sent::Stored(ack) => Ok(ack),
        Sent::WrongLast => Err(Error::WrongLastSequence {
            subject: subject.clone(),
            expected: how.expected_last_subject_sequence.unwrap_or_default(),
        }),
        Sent::TooLarge => {
            let fresh = bus.streams.covering_now(&bus.link, subject).await?.ok_or_else(no_stream)?;
            check_size(&bus.link, &fresh, subject, size)?;
            Err(Error::TooLarge { subject: subject.clone(), size, max: bus.link.max_payload() })
        }
        Sent::Refused(fault) => Err(Error::Refused(fault.to_string())),
        Sent::NoResponders => match bus.streams.covering_now(&bus.link, subject).await? {
            None => Err(no_stream()),
            Some(f) => Err(Error::Unavailable(format!("stream {:?} has no leader now", f.info.name))),
        },
        Sent::Unknown(reason) if !bus.link.is_up() => Err(Error::Unavailable(reason)),
        Sent::Unknown(reason) => match bus.streams.covering_now(&bus.link, subject).await {
            Ok(None) => Err(no_stream()),
            _ => Err(Error::Unavailable(reason)),
        },
    }
}
