//! Where the stand-ins' events go and come from: a nats-server, or the admin port of a daemon. What they need of
//! either is said here; each has a file of its own.

mod choice;
mod cofferdam;
mod nats;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::stream::BoxStream;
use serde_json::{Map, Value};
use tonic::async_trait;

pub(crate) use self::choice::{Choice, OnBus};

/// How long a bus may take to show what it holds.
const LOOK: Duration = Duration::from_secs(10);
/// The clocks of this machine and of the bus may differ by this much.
const SKEW: Duration = Duration::from_secs(60);

/// Where an event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stream: String,
    pub(crate) sequence: u64,
}

/// How far the events of a subject were taken in, where the reader has to remember it. The sequence alone would lie
/// once a stream was made anew and counts from 1 again, so the message's time goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) subject: String,
    pub(crate) place: Place,
    /// Nanoseconds since the epoch, by the bus's clock.
    pub(crate) stored_at: i64,
}

/// An event that came in.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) data: Vec<u8>,
    /// To be stored together with what the event causes. None where the bus keeps count by itself.
    pub(crate) mark: Option<Mark>,
}

/// A message that passes, for people.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) subject: String,
    /// A repeated name keeps its last value.
    pub(crate) headers: Map<String, Value>,
    pub(crate) data: Vec<u8>,
}

/// Messages as they pass. An error is the end of the stream, not of the bus.
pub(crate) type Watch = BoxStream<'static, anyhow::Result<Passing>>;

/// Every call is one attempt; whoever must succeed tries again.
#[async_trait]
pub(crate) trait Bus: Send + Sync {
    /// Before anything is served: on NATS, that the server is there, with streams that store these subjects and a
    /// durable for each that is followed. A daemon may come later, and its streams with it.
    async fn prepare(&self, published: &[&str], followed: &[&str]) -> anyhow::Result<()>;

    /// Stores a message. With the id of one that the bus remembers, it answers where that one is.
    async fn publish(&self, subject: &str, message_id: &str, data: &str) -> anyhow::Result<Place>;

    /// Where the message with this id is, if it was stored since; asked before a message is sent again, since the bus
    /// forgets ids after some time. A bus that can't have forgotten it yet may answer none.
    async fn find(&self, subject: &str, message_id: &str, since: SystemTime)
    -> anyhow::Result<Option<Place>>;

    /// The events of a subject, each at least once, also those from before. `after` is the last mark that was stored.
    async fn follow(&self, subject: &str, after: Option<Mark>) -> anyhow::Result<Box<dyn Ear>>;

    /// The same for a reader that keeps count on every bus, so that nothing waits for acks that died with it.
    async fn read_on(&self, subject: &str, after: Option<Mark>) -> anyhow::Result<Box<dyn Ear>>;

    /// What passes from now on, on subjects that may have wildcards.
    async fn watch(&self, subjects: &[String]) -> anyhow::Result<Watch>;
}

/// One event at a time; each is answered before the next.
#[async_trait]
pub(crate) trait Ear: Send {
    async fn next(&mut self) -> anyhow::Result<Heard>;

    /// The last event is taken in, and its mark stored.
    async fn done(&mut self) -> anyhow::Result<()>;

    /// The last event is to come again, after so long.
    async fn again(&mut self, delay: Duration) -> anyhow::Result<()>;
}

/// `name` is who we are to the bus. NATS has to be there; a daemon may come later.
pub(crate) async fn connect(on: &OnBus, name: &str) -> anyhow::Result<Arc<dyn Bus>> {
    Ok(match on.choice() {
        Choice::Nats(url) => Arc::new(nats::Nats::connect(&url, name).await?),
        Choice::Cofferdam(url) => Arc::new(cofferdam::Cofferdam::new(&url, on.token.as_deref())?),
    })
}

/// From where on a message may be that was first sent at this time.
fn earliest(sent_at: SystemTime) -> SystemTime {
    sent_at.checked_sub(SKEW).unwrap_or(SystemTime::UNIX_EPOCH)
}
