//! The turn at an ordered durable: one host at a time takes deliveries, the one that the server has pinned; and who gets
//! the turn begins only when it holds all that is outstanding, so that the earlier come before the later.
//!
//! *Outstanding* is what has been delivered to anybody and not acked. The server tells how many those are, not which, and a
//! copy held here may have been acked meanwhile by a host that had it before. So copies are not counted as they are:
//!
//! 1. While nothing is asked for, the server is asked for the number `n` of the outstanding, and the highest sequence `top`
//!    that it has delivered to anybody; it tells both of one moment. The pin it names must be ours.
//! 2. Then all copies held are handed back, and dropped.
//! 3. Of what comes now, each sequence up to `top` was outstanding at that moment: it had been delivered before, and what has
//!    been acked is never delivered again. Once `n` different ones of these are here, *all* that was outstanding is here. What
//!    lies above `top` was delivered to nobody before us, in order, and is here as well. So whatever comes before an event that
//!    is held has been acked, hence committed, or is held.
//!
//! No time enters into this. It ends as well: what a dead host held comes by the ack wait; a living one acks or hands back what it
//! has (it gets nothing new), and each ack lowers the number, so that as soon as as many copies are held as are
//! outstanding, step 1 begins anew, and only who acked during steps 1 to 3 makes another round of it.
//!
//! It begins anew with each connection, although the server may keep the pin: what was under way then is outstanding, and
//! not here. So it does when a delivery was lost on its way, as on a route of a cluster that broke: all deliveries are ours, and
//! the server counts them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use async_nats::{Message as NatsMessage, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use super::{
    acks::{Acks, Reply},
    consumers,
    deliveries::{EXPIRES, End, SILENCE, Task},
};
use crate::{
    ahead::{self, weight},
    api::Delivery,
};

/// The one group of an ordered durable.
pub(super) const GROUP: &str = "ordered";
pub(super) const POLICY: &str = "pinned_client";
/// On each delivery: whose turn it is.
pub(super) const PIN: &str = "Nats-Pin-Id";
/// The status of a pull by another pin than the server's.
pub(super) const WRONG_PIN: u16 = 423;
/// Of a pull that has lapsed when it arrives: it brings nothing, and keeps the pin.
pub(super) const LAPSED: Duration = Duration::from_nanos(1);
/// Between looks, in parts of the ack wait: each may bring one new message to hold meanwhile. When much is held, they become
/// as rare as the pin and what is held allow.
const LOOKS: u32 = 100;
const FEWEST_LOOKS: u32 = 3;
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// Between lines of the log about a wait.
const TELL: Duration = Duration::from_secs(60);

/// A host's place at an ordered durable.
pub(super) struct Turn {
    /// Under which the server knows us, as far as we know.
    pub(super) pin: Option<String>,
    /// Past the barrier, in this session: what comes is the caller's.
    pub(super) begun: bool,
    /// Behind the barrier, by sequence.
    pub(super) held: BTreeMap<u64, (Delivery, Acks)>,
    /// The last pull was sent then: only pulls keep the pin.
    pub(super) asked: Instant,
    /// The durable's own count of deliveries, of the last one in this session.
    pub(super) last: Option<u64>,
    /// How often we asked for one again: not for anything that the event did.
    again: HashMap<u64, u32>,
}

/// What the server said of one moment.
struct Moment {
    outstanding: usize,
    top: u64,
}

/// How long a look takes at least that brought something new to hold.
struct Pause {
    now: Duration,
    shortest: Duration,
    longest: Duration,
}

impl Pause {
    fn new(shortest: Duration, longest: Duration) -> Pause {
        Pause { now: shortest, shortest, longest }
    }

    /// After a look that brought something outstanding, something new, or neither, with so much held in bytes. A long handler
    /// of another host is no reason to hold all that comes meanwhile.
    fn adapt(&mut self, outstanding: bool, new: bool, held: usize) {
        if outstanding {
            self.now = self.shortest;
        } else if new && held > ahead::BYTES {
            self.now = (self.now * 2).min(self.longest);
        }
    }
}

impl Turn {
    pub(super) fn new() -> Turn {
        let (held, again) = (BTreeMap::new(), HashMap::new());
        Turn { pin: None, begun: false, held, asked: Instant::now(), last: None, again }
    }

    /// Makes a pull one of the group, and ours.
    pub(super) fn mark(&mut self, pull: &mut Value) {
        pull["group"] = json!(GROUP);
        if let Some(pin) = &self.pin {
            pull["id"] = json!(pin);
        }
        self.asked = Instant::now();
    }

    /// Whether it was sent under the pin that we have; the first one names it.
    pub(super) fn is_of(&mut self, message: &NatsMessage) -> bool {
        // The last is the server's, whatever the message was stored with.
        let pin = message.headers.as_ref().and_then(|h| h.get_last(PIN)).map(|v| v.as_str());
        match (&self.pin, pin) {
            (Some(ours), Some(its)) => ours == its,
            (None, Some(its)) => {
                self.pin = Some(its.to_owned());
                true
            }
            (_, None) => false,
        }
    }

    /// Whether nothing was delivered between the last one of this session and this.
    fn follows(&mut self, reply: &Reply) -> bool {
        let last = self.last.replace(reply.delivery);
        last.is_none_or(|last| reply.delivery == last + 1)
    }

    /// How often the event was delivered, less what we caused.
    pub(super) fn count(&self, reply: &Reply) -> u32 {
        let ours = self.again.get(&reply.sequence).copied().unwrap_or(0);
        reply.count.saturating_sub(ours).max(1)
    }
}

impl Task {
    /// Waits for this host's turn, if the durable is an ordered one.
    pub(super) async fn come_to_turn(
        &mut self,
        epoch: u64,
        inbox: &str,
        subscriber: &mut Subscriber,
        keep: &mut Interval,
    ) -> Result<(), End> {
        if self.turn.is_none() {
            return Ok(());
        }
        let (bus, stop, mut gone) = (self.bus.clone(), self.stop.clone(), self.state.gone());
        tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            () = bus.link.lost(epoch) => Err(End::Again),
            _ = gone.wait_for(|gone| *gone) => Err(End::Gone),
            taken = self.take_over(inbox, subscriber, keep) => taken,
        }
    }

    /// Waits for the turn, and until the barrier may open. Dropped at any await, it leaves what came in `held`.
    async fn take_over(
        &mut self,
        inbox: &str,
        subscriber: &mut Subscriber,
        keep: &mut Interval,
    ) -> Result<(), End> {
        self.give_back().await;
        if let Some(turn) = &mut self.turn {
            turn.again.clear();
        }
        // The server pins whom it sends a message. One at a time, so that no more than that is asked for again.
        while self.collect(inbox, subscriber, keep, 1, EXPIRES).await?.is_empty() {}
        let (began, mut told) = (Instant::now(), Instant::now());
        let ack_wait = self.shared.origin.ack_wait;
        let mut pause = Pause::new((ack_wait / LOOKS).min(LONGEST_LOOK), ack_wait / FEWEST_LOOKS);
        let mut since: Option<Moment> = None;
        let mut proven = BTreeSet::<u64>::new();
        loop {
            let now = self.look().await?;
            let held = self.turn.as_ref().map_or(0, |turn| turn.held.len());
            let mut batch = 1;
            let moment = match since {
                Some(since) if held < now.outstanding => since,
                _ => {
                    batch = held;
                    self.ask_again().await?;
                    proven.clear();
                    now
                }
            };
            loop {
                if proven.len() == moment.outstanding {
                    self.begin(began);
                    return Ok(());
                }
                let looked = Instant::now();
                let came = self.collect(inbox, subscriber, keep, batch.max(1), pause.now).await?;
                let before = proven.len();
                proven.extend(came.iter().filter(|sequence| **sequence <= moment.top));
                let new = came.iter().any(|sequence| *sequence > moment.top);
                pause.adapt(proven.len() > before, new, self.weighs());
                // What comes again comes first: after a new one there is no more of it now, and looking for it costs room.
                if new && proven.len() < moment.outstanding {
                    self.rest(looked + pause.now, keep).await;
                }
                if new || came.len() < batch || proven.len() == before {
                    break;
                }
                batch = (batch * 2).min(moment.outstanding.saturating_sub(proven.len()).max(1));
            }
            if proven.len() == moment.outstanding {
                self.begin(began);
                return Ok(());
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                let durable = &self.shared.origin.durable;
                let missing = moment.outstanding.saturating_sub(proven.len());
                tracing::info!(durable, missing, "has the turn, and waits for what others hold");
            }
            since = Some(moment);
        }
    }

    /// What is held behind the barrier.
    fn weighs(&self) -> usize {
        self.turn.iter().flat_map(|turn| turn.held.values()).map(|(d, _)| weight(&d.stored.message)).sum()
    }

    /// Keeps what is held meanwhile.
    async fn rest(&self, until: Instant, keep: &mut Interval) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                _ = keep.tick() => self.keep_waiting().await,
            }
        }
    }

    /// Whether no delivery before this one was lost on its way. The pin makes all ours, and the durable counts nothing else:
    /// not what it skips, nor what it refuses. If one was, the barrier is down again. Where nobody is pinned, others' count too,
    /// and nothing can be told.
    pub(super) fn is_next(&mut self, reply: Option<&Reply>) -> bool {
        let (Some(turn), Some(reply)) = (&mut self.turn, reply) else { return true };
        let next = turn.follows(reply);
        if !next {
            turn.begun = false;
            let (durable, event) = (&self.shared.origin.durable, reply.sequence);
            tracing::info!(durable, event, "a delivery before this one was lost on its way; takes over anew");
        }
        next
    }

    /// What was held is the caller's, in order.
    fn begin(&mut self, began: Instant) {
        let Some(turn) = &mut self.turn else { return };
        turn.begun = true;
        let held = std::mem::take(&mut turn.held);
        let (events, ms) = (held.len(), began.elapsed().as_millis() as u64);
        tracing::info!(durable = self.shared.origin.durable, events, ms, "has taken over");
        self.shared.queue().extend(held.into_values());
        self.shared.filled.notify_one();
    }

    /// Nothing is asked for at this moment, so nothing is under way.
    async fn look(&mut self) -> Result<Moment, End> {
        let origin = &self.shared.origin;
        let answer = consumers::info(&self.bus.link, &origin.stream, &origin.durable).await;
        let answer = answer.map_err(|e| {
            tracing::debug!(?e, durable = origin.durable, "can't look what is outstanding");
            End::Again
        })?;
        let Some(turn) = &mut self.turn else { return Err(End::Again) };
        let group = answer.priority_groups.iter().find(|group| group.group == GROUP);
        if group.and_then(|group| group.pinned_client_id.as_ref()) != turn.pin.as_ref() {
            turn.pin = None;
            return Err(End::Lost);
        }
        let outstanding = usize::try_from(answer.num_ack_pending).unwrap_or(usize::MAX);
        Ok(Moment { outstanding, top: answer.delivered.stream_seq })
    }

    /// Hands back all that is held, for what is still outstanding of it to come again.
    async fn ask_again(&mut self) -> Result<(), End> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        let acks: Vec<Acks> = turn.held.values().map(|(_, acks)| acks.clone()).collect();
        let Some((last, others)) = acks.split_last() else { return Ok(()) };
        for sequence in turn.held.keys() {
            *turn.again.entry(*sequence).or_default() += 1;
        }
        for acks in others {
            crate::api::Settle::nak(acks, None).await.map_err(|_| End::Again)?;
        }
        // Before the next pull is there: otherwise it would bring new ones.
        last.nak_and_wait(&self.bus.link).await.map_err(|_| End::Again)?;
        turn.held.clear();
        Ok(())
    }

    /// Asks for so many, and waits until they are here or the pull has lapsed. Gives their sequences.
    async fn collect(
        &mut self,
        inbox: &str,
        subscriber: &mut Subscriber,
        keep: &mut Interval,
        batch: usize,
        expires: Duration,
    ) -> Result<Vec<u64>, End> {
        self.pull(inbox, batch, expires).await.map_err(|_| End::Again)?;
        let mut came = Vec::new();
        let mut heard = Instant::now();
        while self.expected > 0 {
            tokio::select! {
                message = subscriber.next() => {
                    let message = message.ok_or(End::Again)?;
                    heard = Instant::now();
                    if message.status.is_some() {
                        match self.status(&message) {
                            Some(end) => return Err(end),
                            None => continue,
                        }
                    }
                    self.expected = self.expected.saturating_sub(1);
                    let ours = self.turn.as_mut().is_some_and(|turn| turn.is_of(&message));
                    let reply = Reply::of(&message);
                    came.extend(self.take(message, reply));
                    if !ours {
                        return Err(End::Lost);
                    }
                    if !self.is_known(reply.as_ref()).await || !self.is_next(reply.as_ref()) {
                        return Err(End::Again);
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE) => return Err(End::Again),
                _ = keep.tick() => self.keep_waiting().await,
            }
        }
        Ok(came)
    }

    /// Whoever is next need not wait until the server takes us for dead.
    pub(super) async fn give_up_turn(&mut self) {
        if self.turn.as_mut().and_then(|turn| turn.pin.take()).is_none() {
            return;
        }
        let origin = &self.shared.origin;
        let call = format!("CONSUMER.UNPIN.{}.{}", origin.stream, origin.durable);
        let done: Result<Value, _> = self.bus.link.call(&call, &json!({ "group": GROUP })).await;
        if let Err(e) = done {
            tracing::debug!(?e, durable = origin.durable, "the turn is not given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(delivery: u64) -> Reply {
        Reply { count: 1, sequence: 7, delivery, timestamp: 0, pending: 0 }
    }

    #[test]
    fn a_delivery_that_is_missing_is_noticed_after_the_first_of_a_session() {
        let mut turn = Turn::new();
        let seen = [40, 41, 42, 44, 45, 45, 3, 4].map(|delivery| turn.follows(&reply(delivery)));
        assert_eq!(seen, [true, true, true, false, true, false, false, true]);
        turn.last = None;
        assert!(turn.follows(&reply(100)));
    }

    #[test]
    fn looks_become_rare_when_much_is_held_and_bring_only_more() {
        let milliseconds = Duration::from_millis;
        let mut pause = Pause::new(milliseconds(250), milliseconds(1500));
        let mut after = |outstanding, new, held| {
            pause.adapt(outstanding, new, held);
            pause.now
        };
        assert_eq!(after(false, true, ahead::BYTES), milliseconds(250), "not much");
        assert_eq!(after(false, true, ahead::BYTES + 1), milliseconds(500));
        assert_eq!(after(false, false, ahead::BYTES + 1), milliseconds(500), "nothing more");
        assert_eq!(after(false, true, ahead::BYTES + 1), milliseconds(1000));
        assert_eq!(after(false, true, ahead::BYTES + 1), milliseconds(1500));
        assert_eq!(after(false, true, ahead::BYTES + 1), milliseconds(1500), "the longest");
        assert_eq!(after(true, true, ahead::BYTES + 1), milliseconds(250), "there may be more of it");
    }
}
