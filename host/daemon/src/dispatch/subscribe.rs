//! Taking events from one durable: in stream order, one copy of each at a time, kept alive until it is settled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cofferdam_bus::{ConsumerSpec, Delivery, Error, Origin};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Dispatch, Route,
    admit::Turn,
    decode::{Decoded, decode},
    dispatch,
    settle::{Attempts, hand_back},
};

/// Between tries to get a durable back.
const PAUSE: Duration = Duration::from_secs(1);

/// One subscription of one plugin on this host.
pub struct Subscriber {
    dispatch: Arc<Dispatch>,
    route: Route,
    spec: ConsumerSpec,
    origin: Arc<Origin>,
    attempts: Attempts,
    in_flight: Mutex<HashMap<u64, Arc<Delivery>>>,
    /// True once the durable is being pulled.
    begun: watch::Sender<bool>,
}

impl Subscriber {
    pub fn new(dispatch: Arc<Dispatch>, route: Route, spec: ConsumerSpec, origin: Arc<Origin>) -> Self {
        let begun = watch::channel(false).0;
        Self {
            dispatch,
            route,
            spec,
            origin,
            attempts: Attempts::default(),
            in_flight: Mutex::default(),
            begun,
        }
    }

    /// Follows whether events are taken.
    pub fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Takes events until `stop`; what runs then goes on in `tasks`, until `abort` ends it.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, abort: CancellationToken, tasks: TaskTracker) {
        // Beside the tasks: it beats for them until they are through, and `abort` ends it.
        tokio::spawn(self.clone().heartbeat(abort.clone()));
        let mut origin = self.origin.clone();
        while !stop.is_cancelled() {
            match self.take(&origin, &stop, &abort, &tasks).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(
                        durable = self.spec.durable,
                        "taking events stopped: {error}; beginning anew"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match self.dispatch.services.bus.ensure_consumer(&self.spec).await {
                Ok(anew) => origin = anew,
                Err(error) => {
                    tracing::error!(durable = self.spec.durable, "the durable can't be had: {error}")
                }
            }
        }
    }

    async fn take(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        stop: &CancellationToken,
        abort: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), Error> {
        let buffer = self.dispatch.config.max_in_flight as usize;
        let mut deliveries = self.dispatch.services.bus.deliveries(origin, buffer).await?;
        self.begun.send_replace(true);
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = deliveries.next() => next,
            };
            match next {
                Ok(delivery) => self.accept(delivery, stop, abort, tasks),
                Err(error) => {
                    deliveries.close().await;
                    return Err(error);
                }
            }
        }
        deliveries.close().await;
        Ok(())
    }

    /// Queues an event for its turn, unless a copy of it is here already. Synchronous, so that the queue has the
    /// stream's order.
    fn accept(
        self: &Arc<Self>,
        delivery: Delivery,
        stop: &CancellationToken,
        abort: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let delivery = Arc::new(delivery);
        let sequence = delivery.stored.sequence;
        let in_flight =
            self.dispatch.services.metrics.in_flight.with_label_values(&[self.route.plugin().name.as_str()]);
        if self.lock().insert(sequence, delivery.clone()).is_some() {
            // The copy that came first goes on; acks and heartbeats count for both.
            tracing::debug!(event = delivery.id(), "delivered again while in flight");
            return;
        }
        in_flight.inc();
        let guard = InFlight { subscriber: self.clone(), sequence, gauge: in_flight };
        let decoded = decode(&delivery, self.route.subscription(), &self.route.plugin().space);
        let turn = self.dispatch.admission.queue(decoded.turn());
        let (stop, abort) = (stop.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {
                    tracing::warn!(event = delivery.id(), "stopped while it ran; it comes again after the ack wait");
                }
                () = guard.subscriber.clone().work(&delivery, decoded, turn, &stop) => {}
            }
            drop(guard);
        });
    }

    async fn work(
        self: Arc<Self>,
        delivery: &Arc<Delivery>,
        decoded: Decoded,
        mut turn: Turn,
        stop: &CancellationToken,
    ) {
        let plugin = self.route.plugin();
        let admitted = tokio::select! {
            biased;
            admitted = async {
                turn.come().await;
                self.dispatch.admission.permits(&plugin.permits).await
            } => admitted,
            () = stop.cancelled() => None,
        };
        // A stop hands back what has not begun.
        let Some(_permits) = admitted.filter(|_| !stop.is_cancelled()) else {
            hand_back(delivery, None).await;
            return;
        };
        dispatch(&self.dispatch, &self.route, delivery, &decoded, &self.attempts).await;
    }

    /// Tells the bus, every third of the ack wait, of all that is in flight, parked or running.
    async fn heartbeat(self: Arc<Self>, abort: CancellationToken) {
        let mut beat = tokio::time::interval(self.spec.ack_wait / 3);
        beat.tick().await;
        loop {
            tokio::select! {
                () = abort.cancelled() => return,
                _ = beat.tick() => {}
            }
            let all: Vec<Arc<Delivery>> = self.lock().values().cloned().collect();
            for delivery in all {
                if let Err(error) = delivery.in_progress().await {
                    tracing::debug!(event = delivery.id(), "no heartbeat: {error}");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Delivery>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event's entry among those in flight.
struct InFlight {
    subscriber: Arc<Subscriber>,
    sequence: u64,
    gauge: prometheus::IntGauge,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.subscriber.lock().remove(&self.sequence);
        self.gauge.dec();
    }
}
