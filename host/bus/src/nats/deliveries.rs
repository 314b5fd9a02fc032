//! The pull loop of a durable. A task of its own keeps messages fetched ahead, keeps them from being redelivered while
//! they wait for the caller, and outlives lost connections, silent leaders and restarts. It never ends quietly: only a
//! durable that is gone is an error.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Message as NatsMessage, StatusCode, Subscriber};
use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::json;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    NatsBus,
    acks::{Acks, Reply},
    floors::OriginState,
    headers,
    link::Backoff,
};
use crate::{
    api::{Deliveries, Delivery, Message, Origin, Settle, Stored},
    error::Error,
};

/// A pull request lapses after this long and is made again, so one that got lost costs no more.
const EXPIRES: Duration = Duration::from_secs(30);
/// The server tells that it is alive this often while a pull waits.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Two heartbeats missed: the pull is taken for lost.
const SILENCE: Duration = Duration::from_secs(11);
/// How long a close waits for messages under way: milliseconds on a healthy connection, seconds on a starved machine.
const CLOSING: Duration = Duration::from_secs(10);
/// How long a close waits until what it handed back has left this process.
const FLUSHING: Duration = Duration::from_secs(2);

/// What the caller and the task share.
struct Shared {
    origin: Arc<Origin>,
    /// With each delivery the means to keep it ours.
    queue: Mutex<VecDeque<(Delivery, Acks)>>,
    /// The task put something into the queue, or has ended.
    filled: Notify,
    /// The caller took something.
    taken: Notify,
    ended: Mutex<Option<Error>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Delivery, Acks)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Option<Error>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Pull {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Dropped without `close`, the task does its best to hand back what it holds.
    _stop_on_drop: DropGuard,
    task: Option<JoinHandle<()>>,
}

impl Pull {
    pub(super) fn start(
        bus: &Arc<NatsBus>,
        origin: &Arc<Origin>,
        state: Arc<OriginState>,
        buffer: usize,
    ) -> Pull {
        let shared = Arc::new(Shared {
            origin: origin.clone(),
            queue: Mutex::default(),
            filled: Notify::new(),
            taken: Notify::new(),
            ended: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let task = Task {
            bus: bus.clone(),
            state,
            shared: shared.clone(),
            stop: stop.clone(),
            buffer: buffer.max(1),
            expected: 0,
            last_delivery: 0,
            highest: 0,
        };
        let task = tokio::spawn(task.run());
        Pull { shared, _stop_on_drop: stop.clone().drop_guard(), stop, task: Some(task) }
    }
}

#[async_trait]
impl Deliveries for Pull {
    async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            let taken = self.shared.queue().pop_front();
            if let Some((delivery, _)) = taken {
                self.shared.taken.notify_one();
                return Ok(delivery);
            }
            if let Some(error) = self.shared.ended().clone() {
                return Err(error);
            }
            self.shared.filled.notified().await;
        }
    }

    async fn close(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && task.await.is_err()
        {
            tracing::error!(durable = self.shared.origin.durable, "the pull task failed");
        }
    }
}

/// Why a session (one subscription and the pulls that answer to it) ended.
enum End {
    Stopped,
    /// Begin anew: lost connection, silence, a leader that went.
    Again,
    Gone,
}

struct Task {
    bus: Arc<NatsBus>,
    state: Arc<OriginState>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    buffer: usize,
    /// Asked for and not yet there.
    expected: usize,
    /// The durable's own count of deliveries, of the last one seen.
    last_delivery: u64,
    /// Sequence of the newest message seen.
    highest: u64,
}

impl Task {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let end = tokio::select! {
                () = stop.cancelled() => End::Stopped,
                epoch = self.opened() => match epoch {
                    Some(epoch) => self.session(epoch).await,
                    None => End::Gone,
                },
            };
            match end {
                End::Stopped => break,
                End::Again if began.elapsed() > EXPIRES => backoff = Backoff::new(),
                End::Again => {}
                End::Gone => {
                    let name = format!("{}/{}", self.shared.origin.stream, self.shared.origin.durable);
                    *self.shared.ended() = Some(Error::Gone { what: "durable", name });
                    self.shared.filled.notify_one();
                    break;
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = backoff.wait() => {}
            }
        }
        self.hand_back().await;
    }

    /// Waits for a connection, and looks whether the durable is still the one that we know.
    async fn opened(&self) -> Option<u64> {
        let mut backoff = Backoff::new();
        loop {
            let epoch = self.bus.link.up().await;
            match self.state.refresh(&self.bus.link).await {
                Ok(true) => return Some(epoch),
                Ok(false) => return None,
                Err(e) => {
                    tracing::debug!(?e, durable = self.shared.origin.durable, "not ready to pull");
                    backoff.wait().await;
                }
            }
        }
    }

    async fn session(&mut self, epoch: u64) -> End {
        let inbox = self.bus.link.client.new_inbox();
        let Ok(mut subscriber) = self.bus.link.client.subscribe(inbox.clone()).await else {
            return End::Again;
        };
        self.expected = 0;
        let end = self.pump(epoch, &inbox, &mut subscriber).await;
        // Open pulls end with the subscription. What was on its way already is taken, not left to the ack wait.
        if subscriber.drain().await.is_ok() {
            let (bus, durable) = (self.bus.clone(), self.shared.origin.durable.clone());
            let rest = async {
                while let Some(message) = subscriber.next().await {
                    if message.status.is_none() {
                        self.take(message);
                    }
                }
            };
            tokio::select! {
                () = rest => {}
                // Nothing more comes over a lost connection.
                () = bus.link.lost(epoch) => {}
                () = tokio::time::sleep(CLOSING) => {
                    tracing::warn!(
                        durable,
                        "the server is slow to end a subscription; what is under way comes again after the ack wait"
                    );
                }
            }
        }
        end
    }

    async fn pump(&mut self, epoch: u64, inbox: &str, subscriber: &mut Subscriber) -> End {
        let bus = self.bus.clone();
        let lost = bus.link.lost(epoch);
        tokio::pin!(lost);
        let mut gone = self.state.gone();
        if *gone.borrow_and_update() {
            return End::Gone;
        }
        let mut keep = tokio::time::interval((self.shared.origin.ack_wait / 3).max(Duration::from_millis(1)));
        keep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            if self.ask_more(inbox).await.is_err() {
                return End::Again;
            }
            tokio::select! {
                () = self.stop.cancelled() => return End::Stopped,
                () = &mut lost => return End::Again,
                changed = gone.changed() => match changed {
                    Ok(()) if *gone.borrow_and_update() => return End::Gone,
                    _ => return End::Again,
                },
                message = subscriber.next() => {
                    let Some(message) = message else { return End::Again };
                    heard = Instant::now();
                    if message.status.is_none() {
                        self.expected = self.expected.saturating_sub(1);
                        if self.counts_back(&message) && !matches!(self.state.refresh(&bus.link).await, Ok(true)) {
                            return End::Again;
                        }
                        self.take(message);
                    } else if let Some(end) = self.status(&message) {
                        return end;
                    }
                }
                () = self.shared.taken.notified() => {}
                () = tokio::time::sleep_until(heard + SILENCE), if self.expected > 0 => return End::Again,
                _ = keep.tick() => self.keep_waiting().await,
            }
            if self.expected == 0 {
                heard = Instant::now();
            }
        }
    }

    /// Keeps half of the buffer or more asked for.
    async fn ask_more(&mut self, inbox: &str) -> Result<(), Error> {
        let free = self.buffer.saturating_sub(self.shared.queue().len() + self.expected);
        if free == 0 || free * 2 < self.buffer {
            return Ok(());
        }
        let body = json!({
            "batch": free,
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let origin = &self.shared.origin;
        let to = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", origin.stream, origin.durable);
        let sent =
            self.bus.link.client.publish_with_reply(to, inbox.to_owned(), body.to_string().into()).await;
        sent.map_err(|e| Error::Unavailable(e.to_string()))?;
        self.expected += free;
        Ok(())
    }

    /// What the server says instead of a message; `Some` ends the session.
    fn status(&mut self, message: &NatsMessage) -> Option<End> {
        let status = message.status.unwrap_or(StatusCode::OK);
        // A pull that lapsed tells how many messages it still owed. One that ended with its leader tells too, but asking
        // again at once may meet nobody, and where somebody listens to all subjects the server doesn't say so.
        let owed = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages"));
        let owed = owed.and_then(|v| v.as_str().parse::<usize>().ok());
        if status == StatusCode::IDLE_HEARTBEAT {
            return None;
        }
        if let Some(owed) = owed.filter(|_| status == StatusCode::TIMEOUT) {
            self.expected = self.expected.saturating_sub(owed);
            return None;
        }
        tracing::debug!(
            durable = self.shared.origin.durable,
            %status,
            description = message.description,
            "a pull ended"
        );
        // Consumer deleted, leadership change, server shutdown, no responders, a limit: look, then begin anew.
        Some(End::Again)
    }

    /// A count of deliveries that goes back: the server lost its last seconds, or this is another durable.
    fn counts_back(&mut self, message: &NatsMessage) -> bool {
        let count = message.reply.as_deref().and_then(Reply::parse).map_or(0, |r| r.delivery);
        let back = count <= self.last_delivery;
        self.last_delivery = count;
        back
    }

    fn take(&mut self, message: NatsMessage) {
        let Some((reply, parsed)) =
            message.reply.as_ref().and_then(|r| Some((r.to_string(), Reply::parse(r)?)))
        else {
            tracing::warn!(durable = self.shared.origin.durable, "a message without a reply subject");
            return;
        };
        let settle = Acks::new(self.bus.link.client.clone(), reply);
        let delivery = Delivery {
            origin: self.shared.origin.clone(),
            stored: Stored {
                message: Message {
                    subject: message.subject.to_string(),
                    headers: headers::incoming(message.headers.as_ref()),
                    data: message.payload,
                },
                sequence: parsed.sequence,
                timestamp: parsed.timestamp,
            },
            count: parsed.count,
            settle: Box::new(settle.clone()),
        };
        let again = parsed.sequence <= self.highest;
        self.highest = self.highest.max(parsed.sequence);
        let mut queue = self.shared.queue();
        match queue.iter_mut().find(|(d, _)| again && d.stored.sequence == parsed.sequence) {
            // Redelivered by a restarted server while it waits here.
            Some(waiting) => *waiting = (delivery, settle),
            None => queue.push_back((delivery, settle)),
        }
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// What waits for the caller is not to be redelivered meanwhile.
    async fn keep_waiting(&self) {
        let waiting: Vec<Acks> = self.shared.queue().iter().map(|(_, acks)| acks.clone()).collect();
        for reply in waiting {
            if let Err(e) = reply.in_progress().await {
                tracing::debug!(%e, "no heartbeat");
            }
        }
    }

    async fn hand_back(&self) {
        let held: Vec<(Delivery, Acks)> = self.shared.queue().drain(..).collect();
        let naks = async {
            for (delivery, _) in held {
                if let Err(e) = delivery.nak(None).await {
                    tracing::debug!(%e, "not handed back");
                }
            }
            if let Err(e) = self.bus.link.client.flush().await {
                tracing::debug!(%e, "not flushed");
            }
        };
        if tokio::time::timeout(FLUSHING, naks).await.is_err() {
            tracing::debug!(durable = self.shared.origin.durable, "not handed back: no connection");
        }
    }
}
