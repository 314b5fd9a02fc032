//! What a delivery's reply subject says, and settling by it. Which deliveries there are is `deliveries`' business.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Subject};
use async_trait::async_trait;
use bytes::Bytes;

use super::link::{Link, Silence};
use crate::{api::Settle, error::Error};

const NAK: &[u8] = b"-NAK";

/// Settles by the message's reply subject, over whatever connection there is by then.
#[derive(Debug, Clone)]
pub(super) struct Acks {
    client: Arc<Client>,
    reply: Subject,
    /// What a host hands back of an ordered durable comes again no later than what it would leave by its death: whoever
    /// takes over waits for it.
    longest: Option<Duration>,
}

impl Acks {
    pub(super) fn new(client: Arc<Client>, reply: Subject, longest: Option<Duration>) -> Acks {
        Acks { client, reply, longest }
    }

    /// Hands back, and returns when the server has done that, and all that was said on this connection before.
    pub(super) async fn nak_and_wait(&self, link: &Link) -> Result<(), Silence> {
        link.ask(self.reply.to_string(), None, Bytes::from_static(NAK)).await.map(drop)
    }

    async fn say(&self, what: Bytes) -> Result<(), Error> {
        let sent = self.client.publish(self.reply.clone(), what).await;
        sent.map_err(|e| Error::Unavailable(e.to_string()))
    }
}

#[async_trait]
impl Settle for Acks {
    async fn ack(&self) -> Result<(), Error> {
        self.say(Bytes::from_static(b"+ACK")).await
    }

    async fn term(&self) -> Result<(), Error> {
        self.say(Bytes::from_static(b"+TERM")).await
    }

    async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        match delay.map(|d| d.min(self.longest.unwrap_or(d))) {
            None => self.say(Bytes::from_static(NAK)).await,
            Some(d) => self.say(format!("-NAK {{\"delay\": {}}}", d.as_nanos()).into()).await,
        }
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.say(Bytes::from_static(b"+WPI")).await
    }
}

/// `$JS.ACK.<stream>.<durable>.<count>.<sequence>.<delivery>.<timestamp>.<pending>`, or the same with domain and account
/// after `ACK` and a token at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) count: u32,
    pub(super) sequence: u64,
    pub(super) delivery: u64,
    pub(super) timestamp: u64,
    pub(super) pending: u64,
}

impl Reply {
    pub(super) fn of(message: &async_nats::Message) -> Option<Reply> {
        message.reply.as_deref().and_then(Reply::parse)
    }

    fn parse(reply: &str) -> Option<Reply> {
        let tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let names = match tokens.clone().count() {
            7 => 2,
            n if n >= 9 => 4,
            _ => return None,
        };
        let mut numbers = tokens.skip(names).map_while(|token| token.parse().ok());
        Some(Reply {
            count: u32::try_from(numbers.next()?).ok()?,
            sequence: numbers.next()?,
            delivery: numbers.next()?,
            timestamp: numbers.next()?,
            pending: numbers.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_reply_subject_are_read() {
        for reply in
            ["$JS.ACK.S.d.2.7.9.1700000000000000000.0", "$JS.ACK.dom.acc.S.d.2.7.9.1700000000000000000.0.x"]
        {
            let r = Reply::parse(reply).unwrap();
            assert_eq!((r.count, r.sequence, r.delivery, r.timestamp), (2, 7, 9, 1_700_000_000_000_000_000));
        }
        assert!(Reply::parse("_INBOX.x").is_none());
        assert!(Reply::parse("$JS.ACK.S.d.x.7.9.1.0").is_none());
    }
}
