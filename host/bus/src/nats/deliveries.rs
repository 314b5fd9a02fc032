//! The pull loop of a durable. A task of its own keeps messages fetched ahead, keeps them from being redelivered while
//! they wait for the caller, and outlives lost connections, silent leaders and restarts. It never ends quietly: only a
//! durable that is gone is an error.

use std::{sync::Arc, time::Duration};

use async_nats::{Message as NatsMessage, StatusCode, Subscriber};
use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    NatsBus,
    acks::{Acks, Reply},
    floors::OriginState,
    headers,
    link::Backoff,
    takeover::{self, Turn},
    waiting::Shared,
};
use crate::{
    ahead::{Ahead, Room, weight},
    api::{Deliveries, Delivery, Message, Origin, Settle, Stored},
    error::Error,
};

/// A pull request lapses after this long and is made again, so one that got lost costs no more.
pub(super) const EXPIRES: Duration = Duration::from_secs(30);
/// Of a taker that says how many it wants, at a time.
const MOST: usize = 4096;
/// The server tells that it is alive this often while a pull waits.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Two heartbeats missed: the pull is taken for lost.
pub(super) const SILENCE: Duration = Duration::from_secs(11);
/// How the server says that the next message is over what is left of a pull's bytes.
const EXHAUSTED: &str = "Message Size Exceeds MaxBytes";
/// And that all came that a pull asked for, with bytes left.
const COMPLETED: &str = "Batch Completed";
/// How long a close waits for messages under way: milliseconds on a healthy connection, seconds on a starved machine.
const CLOSING: Duration = Duration::from_secs(10);
/// How long a close waits until what it handed back has left this process.
const FLUSHING: Duration = Duration::from_secs(2);

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
        let shared = Arc::new(Shared::new(origin, buffer > 0 || origin.ordered));
        let stop = CancellationToken::new();
        let task = Task {
            bus: bus.clone(),
            state,
            shared: shared.clone(),
            stop: stop.clone(),
            buffer: if buffer > 0 { buffer } else { MOST },
            expected: 0,
            ahead: Ahead::new(bus.link.client.server_info().max_payload),
            last_delivery: 0,
            highest: 0,
            turn: origin.ordered.then(Turn::new),
        };
        let task = tokio::spawn(task.run());
        Pull { shared, _stop_on_drop: stop.clone().drop_guard(), stop, task: Some(task) }
    }
}

#[async_trait]
impl Deliveries for Pull {
    async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.shared.take() {
                return Ok(delivery);
            }
            if let Some(error) = self.shared.ended().clone() {
                return Err(error);
            }
            self.shared.filled.notified().await;
        }
    }

    async fn want(&mut self, count: usize) {
        if !self.shared.origin.ordered {
            self.shared.want(count);
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
pub(super) enum End {
    Stopped,
    /// Begin anew: lost connection, silence, a leader that went.
    Again,
    /// Begin anew at once: the caller wants less than was asked for.
    Withdrawn,
    /// Another host has the turn, or nobody.
    Lost,
    Gone,
}

pub(super) struct Task {
    pub(super) bus: Arc<NatsBus>,
    pub(super) state: Arc<OriginState>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    buffer: usize,
    /// Asked for and not yet there.
    pub(super) expected: usize,
    ahead: Ahead,
    /// The durable's own count of deliveries, of the last one seen.
    last_delivery: u64,
    /// Sequence of the newest message seen.
    highest: u64,
    /// Of an ordered durable.
    pub(super) turn: Option<Turn>,
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
                    Some(epoch) => loop {
                        match self.session(epoch).await {
                            End::Withdrawn => {}
                            end => break end,
                        }
                    },
                    None => End::Gone,
                },
            };
            match end {
                End::Stopped => break,
                End::Again if began.elapsed() > EXPIRES => backoff = Backoff::new(),
                End::Again | End::Withdrawn => {}
                End::Lost => backoff = Backoff::new(),
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
        if let Some(turn) = &mut self.turn {
            turn.last = None;
        }
        let keep = (self.shared.origin.ack_wait / 3).max(Duration::from_millis(1));
        let mut keep = tokio::time::interval(keep);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = match self.come_to_turn(epoch, &inbox, &mut subscriber, &mut keep).await {
            Ok(()) => self.pump(epoch, &inbox, &mut subscriber, &mut keep).await,
            Err(end) => end,
        };
        if let Some(turn) = &mut self.turn {
            turn.begun = false;
        }
        // Open pulls end with the subscription. What was on its way already is taken, not left to the ack wait.
        if subscriber.drain().await.is_ok() {
            let (bus, durable) = (self.bus.clone(), self.shared.origin.durable.clone());
            let rest = async {
                while let Some(message) = subscriber.next().await {
                    if message.status.is_none() {
                        let reply = Reply::of(&message);
                        self.take(message, reply);
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

    async fn pump(
        &mut self,
        epoch: u64,
        inbox: &str,
        subscriber: &mut Subscriber,
        keep: &mut Interval,
    ) -> End {
        let bus = self.bus.clone();
        let lost = bus.link.lost(epoch);
        tokio::pin!(lost);
        let mut gone = self.state.gone();
        if *gone.borrow_and_update() {
            return End::Gone;
        }
        let mut heard = Instant::now();
        loop {
            if self.asks_for_too_much().await {
                return End::Withdrawn;
            }
            if self.ask_more(inbox).await.is_err() {
                return End::Again;
            }
            let claim = self.turn.as_ref().map_or(heard, |turn| turn.asked + self.shared.origin.ack_wait / 3);
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
                    if message.status.is_some() {
                        match self.status(&message) {
                            Some(end) => return end,
                            None => continue,
                        }
                    }
                    self.expected = self.expected.saturating_sub(1);
                    let reply = Reply::of(&message);
                    if let Some(turn) = &mut self.turn
                        && !turn.is_of(&message)
                    {
                        turn.begun = false;
                        self.take(message, reply);
                        return End::Lost;
                    }
                    if !self.is_known(reply.as_ref()).await {
                        return End::Again;
                    }
                    let next = self.is_next(reply.as_ref());
                    self.take(message, reply);
                    if !next {
                        return End::Again;
                    }
                }
                // A host that takes nothing for a while is not to lose its turn over that.
                () = tokio::time::sleep_until(claim), if self.turn.is_some() => {
                    if self.pull(inbox, 1, takeover::LAPSED).await.is_err() {
                        return End::Again;
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

    /// Keeps half of the buffer or more asked for, as long as that is not too much to hold.
    async fn ask_more(&mut self, inbox: &str) -> Result<(), Error> {
        let most = self.buffer.min(self.shared.wanted());
        let free = most.saturating_sub(self.shared.queue().len() + self.expected);
        if free == 0 || free * 2 < most {
            return Ok(());
        }
        let waiting = self.shared.queue().iter().map(|(d, _)| weight(&d.stored.message)).sum();
        match self.ahead.room(waiting, self.expected > 0) {
            Room::None => Ok(()),
            Room::One => self.pull(inbox, 1, EXPIRES).await,
            Room::Bytes(bytes) => self.pull_within(inbox, free, Some(bytes), EXPIRES).await,
        }
    }

    pub(super) async fn pull(&mut self, inbox: &str, batch: usize, expires: Duration) -> Result<(), Error> {
        self.pull_within(inbox, batch, None, expires).await
    }

    async fn pull_within(
        &mut self,
        inbox: &str,
        batch: usize,
        bytes: Option<usize>,
        expires: Duration,
    ) -> Result<(), Error> {
        let mut body = json!({ "batch": batch, "expires": expires.as_nanos() as u64 });
        if let Some(bytes) = bytes {
            body["max_bytes"] = bytes.into();
        }
        // The server wants two of them at least before the end.
        if expires >= 2 * HEARTBEAT {
            body["idle_heartbeat"] = json!(HEARTBEAT.as_nanos() as u64);
        }
        if let Some(turn) = &mut self.turn {
            turn.mark(&mut body);
        }
        let origin = &self.shared.origin;
        let to = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", origin.stream, origin.durable);
        let sent =
            self.bus.link.client.publish_with_reply(to, inbox.to_owned(), body.to_string().into()).await;
        sent.map_err(|e| Error::Unavailable(e.to_string()))?;
        self.expected += batch;
        Ok(())
    }

    /// What the server says instead of a message; `Some` ends the session.
    pub(super) fn status(&mut self, message: &NatsMessage) -> Option<End> {
        let status = message.status.unwrap_or(StatusCode::OK);
        // A pull that lapsed tells how many messages it still owed. One that ended with its leader tells too, but asking
        // again at once may meet nobody, and where somebody listens to all subjects the server doesn't say so.
        let owed = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<usize>().ok();
        let (owed, bytes) = (owed("Nats-Pending-Messages"), owed("Nats-Pending-Bytes").unwrap_or_default());
        if status == StatusCode::IDLE_HEARTBEAT {
            return None;
        }
        if let Some(owed) = owed.filter(|_| status == StatusCode::TIMEOUT) {
            self.expected = self.expected.saturating_sub(owed);
            self.ahead.ended(bytes);
            return None;
        }
        if message.description.as_deref() == Some(COMPLETED) {
            self.ahead.ended(bytes);
            return None;
        }
        let exhausted = message.description.as_deref().is_some_and(|d| d.starts_with(EXHAUSTED));
        if let Some(owed) = owed.filter(|_| exhausted) {
            self.expected = self.expected.saturating_sub(owed);
            self.ahead.exhausted(bytes);
            return None;
        }
        tracing::debug!(
            durable = self.shared.origin.durable,
            %status,
            description = message.description,
            "a pull ended"
        );
        if let Some(turn) = &mut self.turn
            && status.as_u16() == takeover::WRONG_PIN
        {
            turn.pin = None;
            return Some(End::Lost);
        }
        // Consumer deleted, leadership change, server shutdown, no responders, a limit: look, then begin anew.
        Some(End::Again)
    }

    /// A count of deliveries that goes back: the server lost its last seconds, or this is another durable.
    pub(super) async fn is_known(&mut self, reply: Option<&Reply>) -> bool {
        let count = reply.map_or(0, |r| r.delivery);
        let back = count <= self.last_delivery;
        self.last_delivery = count;
        !back || matches!(self.state.refresh(&self.bus.link).await, Ok(true))
    }

    /// Into the queue, or behind the barrier. Gives its sequence.
    pub(super) fn take(&mut self, message: NatsMessage, parsed: Option<Reply>) -> Option<u64> {
        let Some((reply, parsed)) = message.reply.clone().zip(parsed) else {
            tracing::warn!(durable = self.shared.origin.durable, "a message without a reply subject");
            return None;
        };
        self.ahead.came(message.length);
        let origin = &self.shared.origin;
        let longest = origin.ordered.then_some(origin.ack_wait);
        let settle = Acks::new(self.bus.link.client.clone(), reply, longest);
        let mut headers = headers::incoming(message.headers.as_ref());
        // Of the delivery, not of the message.
        headers.retain(|(name, _)| !origin.ordered || name != takeover::PIN);
        let stored = Stored {
            message: Message { subject: message.subject.into_string(), headers, data: message.payload },
            sequence: parsed.sequence,
            timestamp: parsed.timestamp,
        };
        let count = self.turn.as_ref().map_or(parsed.count, |turn| turn.count(&parsed));
        let (origin, behind) = (self.shared.origin.clone(), parsed.pending);
        let delivery = Delivery::new(origin, stored, count, behind, Box::new(settle.clone()));
        let again = parsed.sequence <= self.highest;
        self.highest = self.highest.max(parsed.sequence);
        if let Some(turn) = &mut self.turn
            && !turn.begun
        {
            turn.held.insert(parsed.sequence, (delivery, settle));
            return Some(parsed.sequence);
        }
        let mut queue = self.shared.queue();
        match queue.iter_mut().find(|(d, _)| again && d.stored.sequence == parsed.sequence) {
            // Redelivered by a restarted server while it waits here.
            Some(waiting) => *waiting = (delivery, settle),
            None => queue.push_back((delivery, settle)),
        }
        drop(queue);
        self.shared.filled.notify_one();
        Some(parsed.sequence)
    }

    /// What waits for the caller is not to be redelivered meanwhile.
    pub(super) async fn keep_waiting(&self) {
        let mut waiting: Vec<Acks> = self.shared.queue().iter().map(|(_, acks)| acks.clone()).collect();
        waiting.extend(self.turn.iter().flat_map(|t| t.held.values().map(|(_, acks)| acks.clone())));
        for reply in waiting {
            if let Err(e) = reply.in_progress().await {
                tracing::debug!(%e, "no heartbeat");
            }
        }
    }

    /// All that the caller has not taken.
    pub(super) async fn give_back(&mut self) {
        let mut waiting: Vec<(Delivery, Acks)> = self.shared.queue().drain(..).collect();
        if let Some(turn) = &mut self.turn {
            waiting.extend(std::mem::take(&mut turn.held).into_values());
        }
        for (delivery, _) in waiting {
            if let Err(e) = delivery.nak(None).await {
                tracing::debug!(%e, "not handed back");
            }
        }
    }

    async fn hand_back(&mut self) {
        let bus = self.bus.clone();
        let naks = async {
            self.give_back().await;
            self.give_up_turn().await;
            if let Err(e) = bus.link.client.flush().await {
                tracing::debug!(%e, "not flushed");
            }
        };
        if tokio::time::timeout(FLUSHING, naks).await.is_err() {
            tracing::debug!(durable = self.shared.origin.durable, "not handed back: no connection");
        }
    }
}
