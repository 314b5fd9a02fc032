//! Deliveries of a durable to whoever takes them, and how each is settled.

use std::{
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

pub(super) struct Local {
    handle: Arc<Handle>,
    origin: Arc<Origin>,
    buffer: usize,
    place: Option<Place>,
    closed: bool,
}

/// Our place among a durable's subscribers.
struct Place {
    seat: Seat,
    durable: DurableId,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
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
        let mut local =
            Local { handle, origin: origin.clone(), buffer: buffer.max(1), place: None, closed: false };
        local.join().await?;
        Ok(local)
    }

    async fn join(&mut self) -> Result<(), Error> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let subscriber = COUNT.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { handle: self.handle.clone(), subscriber };
        let (sender, arrivals) = mpsc::unbounded_channel();
        let (origin, credit) = (self.origin.id.clone(), self.buffer);
        let subscribe = |answer| Op::Subscribe { origin, subscriber, credit, arrivals: sender, answer };
        match self.handle.ask(subscribe).await? {
            Some(durable) => {
                self.place = Some(Place { seat, durable, arrivals });
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
        if self.closed {
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
            let Some(Arrival { stored, count }) = place.arrivals.recv().await else {
                self.place = None;
                continue;
            };
            let (durable, subscriber) = (place.durable, place.seat.subscriber);
            let (sequence, bytes) = (stored.sequence, weight(&stored.message));
            self.handle.send(Op::Taken { durable, subscriber, sequence, bytes, at: Instant::now() });
            let settle = Settling { handle: self.handle.clone(), durable, sequence, count };
            let stored = Arc::unwrap_or_clone(stored);
            return Ok(Delivery::new(self.origin.clone(), stored, count, Box::new(settle)));
        }
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
    fn tell(&self, how: How) -> Result<(), Error> {
        let Settling { durable, sequence, count, .. } = *self;
        self.handle.send(Op::Settle { durable, sequence, count, how });
        Ok(())
    }
}

#[async_trait]
impl Settle for Settling {
    async fn ack(&self) -> Result<(), Error> {
        self.tell(How::Ack)
    }

    /// To the durable, given up is as settled as done.
    async fn term(&self) -> Result<(), Error> {
        self.tell(How::Ack)
    }

    async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.tell(How::Nak(delay))
    }

    async fn in_progress(&self) -> Result<(), Error> {
        self.tell(How::InProgress)
    }
}
