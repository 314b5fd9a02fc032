//! Taking events from one durable: in stream order, one copy of each at a time, kept alive until it is settled, and no
//! more than this host can soon run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cofferdam_bus::{ConsumerSpec, Delivery, Error, Origin};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Dispatch, Route, Taken,
    admit::Turn,
    decode::{Decoded, Strange, decode},
    dispatch,
    endings::Endings,
    grip::{Grip, Held},
    outcome::{Outcome, Then},
    quarantine::{Solo, Suspects},
    settle::{hand_back, hand_back_if_ours, settle},
    weight::{Scale, Weight},
};

/// How often an event of a key waits in its place for what troubles this host, a tenth of the ack wait each time, before it is handed
/// back: longer, and it would be in the way of others when its durable is no more.
const WAITS: u32 = 10;
/// Between tries to get at a durable that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Before an event of the inbox that is strange to this host comes again, here or elsewhere.
const STRANGE: Duration = Duration::from_secs(10);
/// Between two warnings of one kind.
const WARNINGS: Duration = Duration::from_secs(60);
/// Kinds that are told apart.
const KINDS: usize = 1000;

/// One subscription of one plugin on this host.
pub struct Subscriber {
    dispatch: Arc<Dispatch>,
    route: Route,
    spec: ConsumerSpec,
    /// Another one once its stream was made anew.
    origin: watch::Sender<Arc<Origin>>,
    endings: Endings,
    suspects: Suspects,
    /// What was warned of, and when.
    warned: Mutex<HashMap<String, Instant>>,
    /// As many permits as events may be taken and not settled.
    room: Arc<Semaphore>,
    /// What these weigh.
    scale: Arc<Scale>,
    grip: Arc<Grip>,
    /// By event id.
    in_flight: Mutex<HashMap<String, Arc<Delivery>>>,
    /// Whether events are taken now.
    taking: watch::Sender<bool>,
    /// How often an ordered event was let go, so that those after it have to be as well.
    let_go: watch::Sender<u64>,
}

/// Why events are taken no more from deliveries.
enum Taking {
    Stopped,
    /// The order has to be found again.
    Anew,
}

impl Subscriber {
    pub fn new(dispatch: Arc<Dispatch>, route: Route, spec: ConsumerSpec, origin: Arc<Origin>) -> Self {
        let room = Arc::new(Semaphore::new(dispatch.config.max_in_flight as usize));
        let (taking, origin) = (watch::channel(false).0, watch::channel(origin).0);
        let let_go = watch::channel(0).0;
        let (endings, suspects) = (Endings::default(), Suspects::default());
        let (warned, in_flight) = (Mutex::default(), Mutex::default());
        // Where there is no other host, nothing is taken from this one.
        let shared = dispatch.services.bus.is_shared();
        let grip = Grip::new(if shared { spec.ack_wait } else { Duration::MAX });
        Self {
            dispatch,
            route,
            spec,
            origin,
            endings,
            suspects,
            warned,
            room,
            scale: Arc::default(),
            grip,
            in_flight,
            taking,
            let_go,
        }
    }

    pub fn durable(&self) -> &str {
        &self.spec.durable
    }

    /// Where events come from, as of now.
    pub fn origin(&self) -> Arc<Origin> {
        self.origin.borrow().clone()
    }

    /// Follows whether events are taken.
    pub fn taking(&self) -> watch::Receiver<bool> {
        self.taking.subscribe()
    }

    /// Takes events until `stop`; what runs then goes on in `tasks`, until `abort` ends it.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, abort: CancellationToken, tasks: TaskTracker) {
        // Beside the tasks: it beats for them until they are through, and `abort` ends it.
        tokio::spawn(self.clone().heartbeat(abort.clone()));
        let mut origin = self.origin();
        loop {
            let error = match self.take(&origin, &stop, &abort, &tasks).await {
                Ok(Taking::Stopped) => break,
                Ok(Taking::Anew) => continue,
                Err(error) => error,
            };
            self.taking.send_replace(false);
            tracing::error!(durable = self.spec.durable, "no events are taken: {error}");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if let Some(anew) = self.stream_made_anew(&origin).await {
                self.origin.send_replace(anew.clone());
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
    ) -> Result<Taking, Error> {
        // What is fetched ahead is no other host's: little, so that work spreads.
        let ahead = (self.dispatch.config.max_in_flight as usize / 4).max(1);
        self.suspects.load(&self.dispatch.services.bus, &origin.id).await?;
        let mut let_go = self.let_go.subscribe();
        let mut deliveries = self.dispatch.services.bus.deliveries(origin, ahead).await?;
        self.taking.send_replace(true);
        let ended = loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(Taking::Stopped),
                _ = let_go.changed() => break Ok(Taking::Anew),
                next = async {
                    let room = self.room.clone().acquire_owned().await.ok();
                    self.scale.room().await;
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
        if self.lock().insert(delivery.id().to_owned(), delivery.clone()).is_some() {
            // The copy that came first goes on, and this one's heartbeats count for it.
            tracing::debug!(event = delivery.id(), "delivered again while in flight");
            return;
        }
        let plugin = self.route.plugin();
        let gauge = plugin.meters(&self.dispatch.services.metrics).in_flight.clone();
        gauge.inc();
        let in_flight = InFlight {
            held: self.grip.hold(delivery.arrived),
            subscriber: self.clone(),
            delivery: delivery.clone(),
            let_go: self.let_go.subscribe(),
            gauge,
            _room: room,
            _weight: self.scale.put(&delivery),
        };
        let (stop, abort, subscriber) = (stop.clone(), abort.clone(), self.clone());
        let decoded = match decode(&delivery, &self.route, &plugin) {
            Ok(decoded) => decoded,
            Err(strange) => {
                self.warn(&plugin.name, &delivery, &strange);
                tasks.spawn(async move {
                    drop(in_flight);
                    subscriber.endings.handed_back(delivery.id(), delivery.count);
                    hand_back(&delivery, Some(STRANGE)).await;
                });
                return;
            }
        };
        let turn = self.dispatch.admission.queue(decoded.turn());
        let work = async move {
            let solo = Solo::new(&subscriber.dispatch.services.bus, &delivery);
            tokio::select! {
                () = abort.cancelled() => {
                    tracing::warn!(event = delivery.id(), "stopped while it ran; it comes again after the ack wait");
                    solo.undo().await;
                }
                () = subscriber.work(&delivery, decoded, turn, in_flight, &solo, &stop) => {}
            }
        };
        // Made where it stays: tasks are moved as they are spawned.
        tasks.spawn(Box::pin(work));
    }

    /// Tells of an event that this host can't run, each kind once in a while.
    fn warn(&self, plugin: &str, delivery: &Delivery, strange: &Strange) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= KINDS {
            warned.clear();
        }
        let kind = strange.to_string();
        if warned.get(&kind).is_none_or(|last| last.elapsed() >= WARNINGS) {
            tracing::warn!(
                plugin,
                durable = self.spec.durable,
                event = delivery.stored.message.subject,
                "an event in the inbox of plugin {plugin:?} waits: {kind}"
            );
            warned.insert(kind, Instant::now());
        }
    }

    async fn work(
        &self,
        delivery: &Delivery,
        decoded: Decoded,
        mut turn: Turn,
        mut in_flight: InFlight,
        solo: &Solo<'_>,
        stop: &CancellationToken,
    ) {
        let Dispatch { admission, .. } = &*self.dispatch;
        let held = &in_flight.held.clone();
        let mut waits = 0;
        loop {
            let plugin = self.route.plugin();
            let alone = self.suspects.holds(delivery, self.endings.count(delivery.id()));
            let admitted = tokio::select! {
                biased;
                admitted = async {
                    turn.come().await;
                    if alone {
                        tracing::info!(event = decoded.event.id, "came often and to no end: it runs alone");
                        return Some(admission.alone().await);
                    }
                    admission.permits(&plugin.places, decoded.comer()).await
                } => admitted,
                () = stop.cancelled() => None,
                _ = in_flight.let_go.changed() => None,
            };
            // A stop hands back what has not begun. So does an earlier one that was let go: it may be of the same key.
            let goes_on = !stop.is_cancelled() && !in_flight.let_go.has_changed().unwrap_or(true);
            let Some(permits) = admitted.filter(|_| goes_on) else { break };
            let solo = alone.then_some(solo);
            let taken = Taken { delivery, decoded: &decoded, held, endings: &self.endings };
            let finished = dispatch(&self.dispatch, plugin, taken, permits, solo).await;
            if let Some(solo) = solo {
                self.outlived(delivery, solo, &finished.outcome).await;
            }
            let again = self.in_its_place(delivery, &decoded, held, &finished.outcome, &mut waits);
            let Some(pause) = again else {
                if delivery.origin.ordered && is_let_go(&finished.outcome, held) {
                    // Before the turn is the next one's.
                    self.let_go.send_modify(|count| *count += 1);
                }
                drop((turn, in_flight));
                return settle(&self.dispatch, delivery, finished, held, &self.endings, false).await;
            };
            // It keeps its turn, and nothing else.
            settle(&self.dispatch, delivery, finished, held, &self.endings, true).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
                _ = in_flight.let_go.changed() => break,
            }
        }
        drop(in_flight);
        hand_back_if_ours(delivery, held, None).await;
    }

    /// How long to wait before the event is run again in its place, if it is.
    fn in_its_place(
        &self,
        delivery: &Delivery,
        decoded: &Decoded,
        held: &Held,
        outcome: &Outcome,
        waits: &mut u32,
    ) -> Option<Duration> {
        match outcome {
            Outcome::Failure { then: Then::Here(pause), .. } => Some(*pause),
            // Handed back it would lose its place among the events of its key, for nothing that it did.
            Outcome::HandedBack(_) if decoded.turn().is_some() && held.is_sure() && *waits < WAITS => {
                *waits += 1;
                Some(delivery.origin.ack_wait / WAITS)
            }
            _ => None,
        }
    }

    /// A run alone has ended, and the host lives.
    async fn outlived(&self, delivery: &Delivery, solo: &Solo<'_>, outcome: &Outcome) {
        solo.undo().await;
        if !matches!(outcome, Outcome::HandedBack(_)) {
            self.suspects.clear(delivery);
        }
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
            self.grip.beat();
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

/// Whether the event comes again, here or elsewhere, nobody knows when, and without having had its place.
fn is_let_go(outcome: &Outcome, held: &Held) -> bool {
    let back = matches!(outcome, Outcome::HandedBack(_) | Outcome::Failure { then: Then::Back(_), .. });
    back && !held.is_sure()
}

/// An event's place among those in flight.
struct InFlight {
    subscriber: Arc<Subscriber>,
    delivery: Arc<Delivery>,
    held: Held,
    let_go: watch::Receiver<u64>,
    gauge: prometheus::IntGauge,
    _room: Option<OwnedSemaphorePermit>,
    _weight: Weight,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.subscriber.lock().remove(self.delivery.id());
        self.gauge.dec();
    }
}
