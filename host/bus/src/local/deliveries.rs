//! Deliveries of a durable to whoever takes them, and how each is settled.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::mpsc, time::Instant};

use super::{
    durable::Arrival,
    handle::Handle,
    op::{Op, Settle as How},
    tables::DurableId,
};
use crate::{
    ahead::weight,
    api::{Deliveries, Delivery, Origin, Settle},
    error::Error,
};

/// Of a taker that says how many it wants: whatever it can hold.
const ALL: usize = usize::MAX / 2;

pub(super) struct Local {
    handle: Arc<Handle>,
    origin: Arc<Origin>,
    buffer: usize,
    place: Option<Place>,
    /// How many more the taker wants. None: it has not said.
    wanted: Option<usize>,
    closed: bool,
}

/// Our place among a durable's subscribers.
struct Place {
    seat: Seat,
    durable: DurableId,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    /// Those that were looked at, and are wanted.
    kept: VecDeque<Arrival>,
}

impl Place {
    async fn next(&mut self) -> Option<Arrival> {
        match self.kept.pop_front() {
            Some(arrival) => Some(arrival),
            None => self.arrivals.recv().await,
        }
    }

    /// It is in our hands from now on.
    fn take(&self, arrival: &Arrival) -> Settling {
        let Seat { handle, subscriber } = &self.seat;
        let (durable, subscriber, sequence) = (self.durable, *subscriber, arrival.stored.sequence);
        let bytes = weight(&arrival.stored.message);
        handle.send(Op::Taken { durable, subscriber, sequence, bytes, at: Instant::now() });
        Settling { handle: handle.clone(), durable, sequence, count: arrival.count }
    }

    /// Keeps so many of those that are here, and hands back the others, the newest.
    fn keep(&mut self, count: usize) {
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.kept.push_back(arrival);
        }
        for surplus in self.kept.split_off(count.min(self.kept.len())) {
            self.take(&surplus).tell(How::Nak(None));
        }
    }
}

/// Whoever was asked for a place and does not want it any more says so by dropping this, answered or not.
struct Seat {
    handle: Arc<Handle>,
    subscriber: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.handle.send(Op::Unsubscribe { subscriber: self.subscriber, answer: None });
    }
}

impl Local {
    pub(super) async fn start(
        handle: Arc<Handle>,
        origin: &Arc<Origin>,
        buffer: usize,
    ) -> Result<Local, Error> {
        let mut local = Local {
            handle,
            origin: origin.clone(),
            buffer: if buffer > 0 { buffer } else { ALL },
            place: None,
            wanted: (buffer == 0 && !origin.ordered).then_some(0),
            closed: false,
        };
        local.join().await?;
        Ok(local)
    }

    async fn join(&mut self) -> Result<(), Error> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let subscriber = COUNT.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { handle: self.handle.clone(), subscriber };
        let (sender, arrivals) = mpsc::unbounded_channel();
        let (origin, credit, wanted) = (self.origin.id.clone(), self.buffer, self.wanted);
        let subscribe =
            |answer| Op::Subscribe { origin, subscriber, credit, wanted, arrivals: sender, answer };
        match self.handle.ask(subscribe).await? {
            Some(durable) => {
                self.place = Some(Place { seat, durable, arrivals, kept: VecDeque::new() });
                Ok(())
            }
            None => Err(Error::Gone {
                what: "durable",
                name: format!("{}/{}", self.origin.stream, self.origin.durable),
            }),
        }
    }
}

#[async_trait]
impl Deliveries for Local {
    async fn next(&mut self) -> Result<Delivery, Error> {
        if self.closed || self.wanted == Some(0) {
            return std::future::pending().await;
        }
        loop {
            let Some(place) = &mut self.place else {
                // The durable is gone, or the bus had to read its data anew.
                match self.join().await {
                    Ok(()) => continue,
                    Err(Error::Unavailable(_)) => {
                        self.handle.shared.up().await?;
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            };
            let Some(arrival) = place.next().await else {
                self.place = None;
                continue;
            };
            let settle = place.take(&arrival);
            self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(1));
            let stored = Arc::unwrap_or_clone(arrival.stored);
            let Arrival { count, behind, .. } = arrival;
            return Ok(Delivery::new(self.origin.clone(), stored, count, behind, Box::new(settle)));
        }
    }

    async fn want(&mut self, count: usize) {
        if self.origin.ordered {
            return;
        }
        self.wanted = Some(count);
        let Some(place) = &mut self.place else { return };
        let (durable, subscriber) = (place.durable, place.seat.subscriber);
        let want = |answer| Op::Want { durable, subscriber, count, answer };
        if self.handle.ask(want).await.is_err() {
            // It was lost on its way, or everything is read anew: either way the next place is as wanted.
            self.place = None;
            return;
        }
        place.keep(count);
    }

    async fn close(&mut self) {
        self.closed = true;
        if let Some(place) = self.place.take() {
            let subscriber = place.seat.subscriber;
            let left = self.handle.ask(|answer| Op::Unsubscribe { subscriber, answer: Some(answer) });
            // Where nobody answers, all have been handed back.
            drop(left.await);
        }
    }
}

struct Settling {
    handle: Arc<Handle>,
    durable: DurableId,
    sequence: u64,
    count: u32,
}

impl Settling {
    fn tell(&self, how: How) {
        let Settling { durable, sequence, count, .. } = *self;
        self.handle.send(Op::Settle { durable, sequence, count, how });
    }
}

#[async_trait]
impl Settle for Settling {
    async fn ack(&self) -> Result<(), Error> {
        self.tell(How::Ack);
        Ok(())
    }

    /// To the durable, given up is as settled as done.
    async fn term(&self) -> Result<(), Error> {
        self.tell(How::Ack);
        Ok(())
    }

    async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.tell(How::Nak(delay));
        Ok(())
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.tell(How::InProgress);
        Ok(())
    }
}
