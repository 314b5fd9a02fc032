//! Taking events from one durable: in stream order, one copy of each at a time, kept alive until it is settled, and no
//! more than this host can soon run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cofferdam_bus::{ConsumerSpec, Delivery, Error, Origin};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Dispatch, Route,
    admit::Turn,
    decode::{Decoded, decode},
    dispatch,
    endings::Endings,
    outcome::Policy,
    settle::{hand_back, settle},
};

/// Between tries to get at a durable that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// One subscription of one plugin on this host.
pub struct Subscriber {
    dispatch: Arc<Dispatch>,
    route: Route,
    spec: ConsumerSpec,
    origin: Arc<Origin>,
    endings: Endings,
    /// As many permits as events may be taken and not settled.
    room: Arc<Semaphore>,
    /// By event id.
    in_flight: Mutex<HashMap<String, Arc<Delivery>>>,
    /// Whether events are taken now.
    taking: watch::Sender<bool>,
}

impl Subscriber {
    pub fn new(dispatch: Arc<Dispatch>, route: Route, spec: ConsumerSpec, origin: Arc<Origin>) -> Self {
        let room = Arc::new(Semaphore::new(dispatch.config.max_in_flight as usize));
        let taking = watch::channel(false).0;
        let (endings, in_flight) = (Endings::default(), Mutex::default());
        Self { dispatch, route, spec, origin, endings, room, in_flight, taking }
    }

    pub fn durable(&self) -> &str {
        &self.spec.durable
    }

    /// Follows whether events are taken.
    pub fn taking(&self) -> watch::Receiver<bool> {
        self.taking.subscribe()
    }

    /// Takes events until `stop`; what runs then goes on in `tasks`, until `abort` ends it.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, abort: CancellationToken, tasks: TaskTracker) {
        // Beside the tasks: it beats for them until they are through, and `abort` ends it.
        tokio::spawn(self.clone().heartbeat(abort.clone()));
        let mut origin = self.origin.clone();
        while let Err(error) = self.take(&origin, &stop, &abort, &tasks).await {
            self.taking.send_replace(false);
            tracing::error!(durable = self.spec.durable, "no events are taken: {error}");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if let Some(anew) = self.stream_made_anew(&origin).await {
                origin = anew;
            }
        }
        self.taking.send_replace(false);
    }

    /// A durable of a stream that was deleted and made anew is made anew as well. One that was deleted alone is not:
    /// it would deliver again all that its stream holds, which is for a person to decide.
    async fn stream_made_anew(&self, origin: &Origin) -> Option<Arc<Origin>> {
        let bus = &self.dispatch.services.bus;
        let stream = bus.covering(&self.spec.filter).await.ok().flatten()?;
        if stream.created == origin.stream_created {
            return None;
        }
        match bus.ensure_consumer(&ConsumerSpec { stream: stream.name, ..self.spec.clone() }).await {
            Ok(anew) => Some(anew),
            Err(error) => {
                tracing::error!(durable = self.spec.durable, "the durable can't be had: {error}");
                None
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
        // What is fetched ahead is no other host's: little, so that work spreads.
        let ahead = (self.dispatch.config.max_in_flight as usize / 4).max(1);
        let mut deliveries = self.dispatch.services.bus.deliveries(origin, ahead).await?;
        self.taking.send_replace(true);
        let ended = loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                next = async {
                    let room = self.room.clone().acquire_owned().await.ok();
                    (room, deliveries.next().await)
                } => next,
            };
            match next {
                (room, Ok(delivery)) => self.accept(delivery, room, stop, abort, tasks),
                (_, Err(error)) => break Err(error),
            }
        };
        deliveries.close().await;
        ended
    }

    /// Queues an event for its turn, unless a copy of it is here already. Synchronous, so that the queue has the
    /// stream's order.
    fn accept(
        self: &Arc<Self>,
        delivery: Delivery,
        room: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
        abort: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let delivery = Arc::new(delivery);
        let id = delivery.id();
        if self.lock().insert(id.clone(), delivery.clone()).is_some() {
            // The copy that came first goes on, and this one's heartbeats count for it.
            tracing::debug!(event = id, "delivered again while in flight");
            return;
        }
        let plugin = self.route.plugin();
        let gauge = self.dispatch.services.metrics.in_flight.with_label_values(&[plugin.name.as_str()]);
        gauge.inc();
        let in_flight = InFlight { subscriber: self.clone(), id, gauge, _room: room };
        let decoded = decode(&delivery, self.route.subscription(), &plugin.space);
        let turn = self.dispatch.admission.queue(decoded.turn());
        let (stop, abort, subscriber) = (stop.clone(), abort.clone(), self.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {
                    tracing::warn!(event = delivery.id(), "stopped while it ran; it comes again after the ack wait");
                }
                () = subscriber.work(&delivery, decoded, turn, in_flight, &stop) => {}
            }
        });
    }

    async fn work(
        &self,
        delivery: &Delivery,
        decoded: Decoded,
        mut turn: Turn,
        in_flight: InFlight,
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
        let Some(permits) = admitted.filter(|_| !stop.is_cancelled()) else {
            drop(in_flight);
            return hand_back(delivery, None).await;
        };
        let finished = dispatch(&self.dispatch, &self.route, delivery, &decoded, &self.endings).await;
        drop((permits, turn, in_flight));
        let policy = Policy::of(self.route.subscription());
        settle(&self.dispatch, delivery, finished, &self.endings, &policy).await;
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
            let all: Vec<(String, Arc<Delivery>)> =
                self.lock().iter().map(|(id, delivery)| (id.clone(), delivery.clone())).collect();
            for (id, delivery) in all {
                // One that was handed back meanwhile must not be called back.
                if self.lock().contains_key(&id)
                    && let Err(error) = delivery.in_progress().await
                {
                    tracing::debug!(event = id, "no heartbeat: {error}");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Delivery>>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event's place among those in flight.
struct InFlight {
    subscriber: Arc<Subscriber>,
    id: String,
    gauge: prometheus::IntGauge,
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.subscriber.lock().remove(&self.id);
        self.gauge.dec();
    }
}
