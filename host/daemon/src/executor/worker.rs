//! Takes jobs from the queue and hands them to the backend. What a job ends with is committed by its own record: the
//! result comes out once, however often the job is worked.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::{
    Bus, Change, CommitError, Committed, ConsumerSpec, Delivery, Error, Message, Opened, Point, Snapshot,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{FILTER, QueuedJob, ending::Ending, fleet, in_flight::InFlight, offline, tries::Tries};
use crate::{
    capabilities::Services,
    config::{Backend, EXECUTOR_DURABLE, ExecutorConfig},
    observe::trace::{self, TraceContext},
};

/// A job that nobody has told of for so long is somebody else's: as long as an event of a plugin.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Between tries of a job whose backend is out of reach.
const PAUSE: Duration = Duration::from_secs(2);
/// Where a job says 0.
const MAX_TRIES: u32 = 3;

/// What a backend made of a job.
pub(super) enum Worked {
    /// These messages end the job (or, once accepted elsewhere, our part of it).
    Ended { effects: Vec<Message>, outcome: &'static str },
    /// Not now.
    Later(String),
    /// Never.
    Failed { error: String, kind: &'static str },
}

/// Works jobs until `stop`; what is being worked then goes on in `tasks`, until `abort` ends it.
pub async fn run(
    services: Arc<Services>,
    config: ExecutorConfig,
    envelope: String,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
) {
    if config.backend == Backend::Offline {
        tracing::warn!(
            "the executor is \"offline\": a rule-based stand-in answers in place of a model; set [executor] backend = \
             \"fleet\" for real inference"
        );
    }
    let (in_flight, tries) = (InFlight::default(), Tries::default());
    let worker = Arc::new(Worker { services, config, envelope, in_flight, tries });
    // Beside the tasks: it beats for them until they are through, and `abort` ends it.
    tokio::spawn(worker.clone().heartbeat(abort.clone()));
    while !stop.is_cancelled() {
        let Err(error) = worker.take(&stop, &abort, &tasks).await else { break };
        tracing::error!("taking jobs stopped: {error}; beginning anew");
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Makes sure that the queue has its durable, so that a misconfigured bus shows at start.
pub async fn prepare(bus: &Arc<dyn Bus>) -> Result<Arc<cofferdam_bus::Origin>, Error> {
    let Some(stream) = bus.covering(FILTER).await? else {
        return Err(Error::NoStream { subject: FILTER.into() });
    };
    bus.ensure_consumer(&ConsumerSpec {
        stream: stream.name,
        durable: EXECUTOR_DURABLE.into(),
        filter: FILTER.into(),
        ack_wait: ACK_WAIT,
        max_deliver: None,
        max_ack_pending: 1024,
        ordered: false,
    })
    .await
}

struct Worker {
    services: Arc<Services>,
    config: ExecutorConfig,
    envelope: String,
    in_flight: InFlight<Arc<Delivery>>,
    tries: Tries,
}

impl Worker {
    async fn take(
        self: &Arc<Self>,
        stop: &CancellationToken,
        abort: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<(), Error> {
        let permits = Arc::new(Semaphore::new(self.config.concurrency as usize));
        let origin = prepare(&self.services.bus).await?;
        let mut deliveries = self.services.bus.deliveries(&origin, self.config.concurrency as usize).await?;
        loop {
            let (permit, delivery) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = async {
                    let permit = permits.clone().acquire_owned().await.ok();
                    (permit, deliveries.next().await)
                } => taken,
            };
            match delivery {
                Ok(delivery) => self.accept(delivery, permit, abort, tasks),
                Err(error) => {
                    deliveries.close().await;
                    return Err(error);
                }
            }
        }
        deliveries.close().await;
        Ok(())
    }

    /// Begins to work a job, unless a copy of it is being worked.
    fn accept(
        self: &Arc<Self>,
        delivery: Delivery,
        permit: Option<OwnedSemaphorePermit>,
        abort: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let delivery = Arc::new(delivery);
        let Some(entry) = self.in_flight.enter(delivery.id().to_owned(), delivery.clone()) else {
            tracing::debug!(event = delivery.id(), "delivered again while it is worked");
            return;
        };
        let (worker, abort) = (self.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {
                    tracing::warn!(event = delivery.id(), "stopped while it was worked; it comes again after the ack wait");
                }
                () = worker.work(&delivery) => {}
            }
            drop((entry, permit));
        });
    }

    /// Tells the bus of all that is being worked, in time.
    async fn heartbeat(self: Arc<Self>, abort: CancellationToken) {
        let mut beat = tokio::time::interval(ACK_WAIT / 3);
        beat.tick().await;
        loop {
            tokio::select! {
                () = abort.cancelled() => return,
                _ = beat.tick() => {}
            }
            for delivery in self.in_flight.all() {
                if let Err(error) = delivery.in_progress().await {
                    tracing::debug!(event = delivery.id(), "no heartbeat: {error}");
                }
            }
        }
    }

    async fn work(&self, delivery: &Delivery) {
        let snapshot = match self.services.bus.open(delivery, &Point::Record).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => return,
            Err(error) => return later(delivery, &error.to_string()).await,
        };
        let queued: QueuedJob = match serde_json::from_slice(&delivery.stored.message.data) {
            Ok(queued) => queued,
            Err(error) => return self.drop_unreadable(delivery, snapshot, &error).await,
        };
        let attempt = self.tries.of(&queued.id);
        let trace = TraceContext::of_event(&delivery.stored.message.headers, &queued.id, attempt).header();
        let worked = match &self.config.backend {
            Backend::Offline => offline::work(&queued, &self.envelope),
            Backend::Fleet { upstream } => {
                fleet::work(&self.services, upstream, &self.config, &queued, &trace).await
            }
        };
        let tries = if queued.job.max_retries == 0 { MAX_TRIES } else { queued.job.max_retries };
        let ending = match worked {
            Worked::Ended { effects, outcome } => Ending::of(effects, outcome),
            Worked::Later(error) if attempt < tries => {
                self.tries.failed(&queued.id, attempt);
                return later(delivery, &format!("try {attempt} of {tries}: {error}")).await;
            }
            Worked::Later(error) => self.failed(&queued, error, "unavailable"),
            Worked::Failed { error, kind } => self.failed(&queued, error, kind),
        };
        self.end(delivery, &snapshot, &queued, ending, &trace).await;
    }

    fn failed(&self, queued: &QueuedJob, error: String, kind: &'static str) -> Ending {
        tracing::error!(job = queued.id, task_id = queued.job.task_id, kind, "the job failed: {error}");
        Ending::failed(queued, error, kind, &self.envelope)
    }

    /// Commits the end of a job: as it is, or as much of it as can be stored.
    async fn end(
        &self,
        delivery: &Delivery,
        snapshot: &Snapshot,
        queued: &QueuedJob,
        mut ending: Ending,
        trace: &str,
    ) {
        loop {
            for effect in &mut ending.effects {
                effect.headers.push((trace::HEADER.into(), trace.to_owned()));
            }
            let change = Change { effects: ending.effects.clone(), ..Change::default() };
            match self.services.bus.commit(delivery, snapshot.clone(), change).await {
                Ok(committed) => {
                    self.tries.over(&queued.id);
                    return self.ended(delivery, &committed, ending.outcome);
                }
                Err(CommitError::Settled | CommitError::Conflict) => {
                    self.tries.over(&queued.id);
                    tracing::debug!(event = delivery.id(), "another worker was first");
                    return;
                }
                Err(CommitError::Unfit(reason)) => match ending.less(queued, &reason, &self.envelope) {
                    Some(less) => ending = less,
                    None => return later(delivery, &reason).await,
                },
                Err(CommitError::Bus(error)) => return later(delivery, &error.to_string()).await,
            }
        }
    }

    async fn drop_unreadable(&self, delivery: &Delivery, snapshot: Snapshot, error: &serde_json::Error) {
        tracing::error!(event = delivery.id(), "a job that can't be read was dropped: {error}");
        match self.services.bus.commit(delivery, snapshot, Change::default()).await {
            Ok(committed) => self.ended(delivery, &committed, "unreadable"),
            Err(error) => later(delivery, &error.to_string()).await,
        }
    }

    fn ended(&self, delivery: &Delivery, committed: &Committed, outcome: &str) {
        for refused in &committed.refused {
            let (subject, reason) = (&refused.subject, &refused.reason);
            tracing::error!(event = delivery.id(), subject, "a result was refused: {reason}");
        }
        let backend = match &self.config.backend {
            Backend::Offline => "offline",
            Backend::Fleet { .. } => "fleet",
        };
        self.services.metrics.jobs.with_label_values(&[backend, outcome]).inc();
    }
}

async fn later(delivery: &Delivery, why: &str) {
    tracing::warn!(event = delivery.id(), deliveries = delivery.count, "the job waits: {why}");
    crate::dispatch::hand_back(delivery, Some(PAUSE)).await;
}
