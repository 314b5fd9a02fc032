//! One connection to NATS: whether it is up, requests with a known or an unknown outcome, and the server's clock.
//! Knows nothing of streams.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, Message, Request, client::RequestErrorKind};
use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::{clock::ServerClock, timing::Timing};
use crate::{api::Connection, error::Error};

/// How long an answer may take. A JetStream leader answers in under a millisecond; an election takes about 5 s, and
/// whoever must know the outcome asks again.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nobody listens on the subject.
    NoResponders,
    /// Perhaps it was received, perhaps not.
    Unknown(String),
    /// Over the server's payload limit; not sent.
    TooLarge,
}

impl From<Silence> for Error {
    fn from(silence: Silence) -> Error {
        match silence {
            Silence::NoResponders => {
                Error::Unavailable("JetStream does not answer (no leader, or it is starting)".into())
            }
            Silence::Unknown(reason) => Error::Unavailable(reason),
            Silence::TooLarge => Error::Refused("a request is over the server's max_payload".into()),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Each delivery has it, and to clone a client is a dozen of counts.
    pub(super) client: Arc<Client>,
    connection: watch::Receiver<Connection>,
    /// Counts connections made: what was asked on an earlier one will not be answered.
    epoch: watch::Receiver<u64>,
    /// The last of them that was lost.
    ended: watch::Receiver<u64>,
    clock: Arc<ServerClock>,
    /// Of each stream that is created here.
    pub(super) replicas: u32,
    pub(super) timing: Timing,
}

impl Link {
    pub(super) fn new(
        client: Client,
        connection: watch::Receiver<Connection>,
        epoch: watch::Receiver<u64>,
        ended: watch::Receiver<u64>,
        replicas: u32,
        timing: Timing,
    ) -> Link {
        Link { client: Arc::new(client), connection, epoch, ended, clock: Arc::default(), replicas, timing }
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Waits until the connection is up; gives its number.
    pub(super) async fn up(&self) -> u64 {
        if self.is_up() {
            return *self.epoch.borrow();
        }
        let mut connection = self.connection.clone();
        // The sender lives in the client's event task; when that has ended there is nothing left to wait for.
        if connection.wait_for(|c| *c == Connection::Up).await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.epoch.borrow()
    }

    pub(super) fn is_up(&self) -> bool {
        *self.connection.borrow() == Connection::Up
    }

    /// Returns once the connection with this number is lost.
    pub(super) async fn lost(&self, epoch: u64) {
        // Without a sender there is no client any more.
        drop(self.ended.clone().wait_for(|ended| *ended >= epoch).await);
    }

    /// Asks and waits for the answer. Waits for a connection no longer than for an answer, so that nothing is left in
    /// the client's queue to be sent long after we gave up.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Silence> {
        let Ok(epoch) = tokio::time::timeout(ANSWER, self.up()).await else {
            return Err(Silence::Unknown(self.down_reason()));
        };
        let mut request = Request::new().payload(payload).timeout(Some(ANSWER));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = tokio::select! {
            // The answer first: it may have come just before the connection went.
            biased;
            answer = self.client.send_request(subject, request) => answer,
            () = self.lost(epoch) => return Err(Silence::Unknown("the connection was lost".into())),
        };
        answer.map_err(|e| match e.kind() {
            RequestErrorKind::NoResponders => Silence::NoResponders,
            RequestErrorKind::MaxPayloadExceeded => Silence::TooLarge,
            RequestErrorKind::TimedOut => Silence::Unknown(format!("no answer within {ANSWER:?}")),
            _ => Silence::Unknown(e.to_string()),
        })
    }

    fn down_reason(&self) -> String {
        match &*self.connection.borrow() {
            Connection::Up => "no connection".into(),
            Connection::Down { reason } => reason.clone(),
        }
    }

    /// Of header and data together, as the server counts.
    pub(super) fn max_payload(&self) -> u64 {
        self.client.max_payload() as u64
    }

    /// The server told its time in an answer that has just come, asked for at `asked`.
    pub(super) fn heard_time(&self, server: u64, asked: Instant) {
        self.clock.heard(server, asked, Instant::now());
    }

    /// Nanoseconds since the epoch by the server's clock, as near as we know it: message timestamps are the server's.
    pub(super) fn server_now(&self) -> u64 {
        self.clock.now()
    }
}

/// Waits between attempts at something that will work again some day: 50 ms, doubling up to 2 s.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff(Duration::from_millis(50))
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(2));
    }
}
