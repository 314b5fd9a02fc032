//! Takes jobs from the queue and hands them to the backend. What a job ends with is committed by its own record: the
//! result comes out once, however often the job is worked.

use std::{sync::Arc, time::Duration};

use cofferdam_bus::{
    Bus, Change, CommitError, ConsumerSpec, Delivery, Error, Message, Opened, Point, Snapshot,
};
use cofferdam_sandbox::{JobPhase, JobStatus};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{FILTER, QueuedJob, fleet, offline, response, status};
use crate::{
    capabilities::Services,
    config::{Backend, ExecutorConfig},
    observe::trace::{self, TraceContext},
};

/// Longer than any single step of a backend, so that no heartbeat is needed.
const ACK_WAIT: Duration = Duration::from_secs(120);
const DURABLE: &str = "cofferdam-executor";
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

/// Works jobs until `stop`.
pub async fn run(
    services: Arc<Services>,
    config: ExecutorConfig,
    envelope: String,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    if config.backend == Backend::Offline {
        tracing::warn!(
            "the executor is \"offline\": a rule-based stand-in answers in place of a model; set [executor] backend = \
             \"fleet\" for real inference"
        );
    }
    let worker = Arc::new(Worker { services, config, envelope });
    while !stop.is_cancelled() {
        let Err(error) = worker.take(&stop, &tasks).await else { break };
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
        durable: DURABLE.into(),
        filter: FILTER.into(),
        ack_wait: ACK_WAIT,
        max_deliver: None,
        max_ack_pending: 1024,
    })
    .await
}

struct Worker {
    services: Arc<Services>,
    config: ExecutorConfig,
    envelope: String,
}

impl Worker {
    async fn take(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) -> Result<(), Error> {
        let permits = Arc::new(Semaphore::new(self.config.concurrency as usize));
        let origin = prepare(&self.services.bus).await?;
        let mut deliveries = self.services.bus.deliveries(&origin, self.config.concurrency as usize).await?;
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = async {
                    let permit = permits.clone().acquire_owned().await.ok();
                    (permit, deliveries.next().await)
                } => taken,
            };
            let (permit, delivery) = taken;
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => {
                    deliveries.close().await;
                    return Err(error);
                }
            };
            let worker = self.clone();
            tasks.spawn(async move {
                worker.work(&delivery).await;
                drop(permit);
            });
        }
        deliveries.close().await;
        Ok(())
    }

    async fn work(&self, delivery: &Delivery) {
        let snapshot = match self.services.bus.open(delivery, &Point::Record).await {
            Ok(Opened::Fresh(snapshot)) => snapshot,
            Ok(Opened::Settled) => return,
            Err(error) => return self.later(delivery, &error.to_string()).await,
        };
        let queued: QueuedJob = match serde_json::from_slice(&delivery.stored.message.data) {
            Ok(queued) => queued,
            Err(error) => {
                tracing::error!(event = delivery.id(), "a job that can't be read was dropped: {error}");
                self.commit(delivery, snapshot, Vec::new(), "unreadable", "").await;
                return;
            }
        };
        let trace =
            TraceContext::of_event(&delivery.stored.message.headers, &queued.id, delivery.count).header();
        let worked = match &self.config.backend {
            Backend::Offline => offline::work(&queued, &self.envelope),
            Backend::Fleet { upstream } => {
                fleet::work(&self.services, upstream, &self.config, &queued, &trace).await
            }
        };
        let tries = if queued.job.max_retries == 0 { MAX_TRIES } else { queued.job.max_retries };
        let worked = match worked {
            Worked::Later(error) if delivery.count >= tries => Worked::Failed { error, kind: "unavailable" },
            other => other,
        };
        match worked {
            Worked::Later(error) => self.later(delivery, &error).await,
            Worked::Ended { effects, outcome } => {
                self.commit(delivery, snapshot, effects, outcome, &trace).await
            }
            Worked::Failed { error, kind } => {
                tracing::error!(job = queued.id, task_id = queued.job.task_id, "the job failed: {error}");
                let failed =
                    JobStatus { phase: JobPhase::Failed, execution_id: None, error: Some(error.clone()) };
                let mut effects = response::failed(&queued, &error, kind, &self.envelope);
                effects.push(status::message(&queued.id, &failed));
                self.commit(delivery, snapshot, effects, "failed", &trace).await;
            }
        }
    }

    async fn commit(
        &self,
        delivery: &Delivery,
        snapshot: Snapshot,
        mut effects: Vec<Message>,
        outcome: &str,
        trace: &str,
    ) {
        for effect in &mut effects {
            effect.headers.push((trace::HEADER.into(), trace.to_owned()));
        }
        let change = Change { writes: Vec::new(), effects };
        match self.services.bus.commit(delivery, snapshot, change).await {
            Ok(committed) => {
                for refused in committed.refused {
                    tracing::error!(
                        event = delivery.id(),
                        subject = refused.subject,
                        "a result was refused: {}",
                        refused.reason
                    );
                }
                let backend = match &self.config.backend {
                    Backend::Offline => "offline",
                    Backend::Fleet { .. } => "fleet",
                };
                self.services.metrics.jobs.with_label_values(&[backend, outcome]).inc();
            }
            Err(CommitError::Settled | CommitError::Conflict) => {
                tracing::debug!(event = delivery.id(), "another worker was first");
            }
            Err(error @ (CommitError::Unfit(_) | CommitError::Bus(_))) => {
                self.later(delivery, &error.to_string()).await;
            }
        }
    }

    async fn later(&self, delivery: &Delivery, why: &str) {
        tracing::warn!(event = delivery.id(), deliveries = delivery.count, "the job waits: {why}");
        crate::dispatch::hand_back(delivery, Some(PAUSE)).await;
    }
}
