//! Works jobs: takes them from their queues in fair order, hands them to the backend, and commits what they end with.
//!
//! # One end for each job, whatever crashes
//!
//! A job ends by one commit at the record of its delivery, create-only, with its events and `cd.e.<id>` as effects. So:
//!
//! - *Two workers with the same delivery* (a lease that ran out under a worker that was slow or frozen): both work, the first commit
//!   counts, the other is told so and drops what it has.
//! - *A crash* before the commit leaves nothing but the delivery, which comes again; after it, whoever is delivered the job next applies
//!   what was committed and acks.
//! - *A wish to cancel* is no end: the worker that hears of it makes one, by the same commit as any other. If the answer is committed
//!   first, the wish changes nothing; if the worker dies, the next one hears of the wish before it takes the job.
//! - *A job of several agents* has no end of its own, only parts that have (see `split`).
//! - *A durable that is made anew* gives all jobs that are kept another identity, and delivers them once more. Therefore what is older than
//!   its durable is looked up first: a job with a record has ended. And the message ids of what an end stores are made of the job's id, not
//!   of the delivery's, so that two that end at the same time, one for the old durable and one for the new, are stored as one.
//! - *A delivery that is handed back* (no place free, no tokens left, a try that came to nothing) has not been committed by this worker, and
//!   will not be: whoever hands it back does nothing else with it.

mod clerk;
mod desk;
mod end;
mod pull;
mod work;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cofferdam_bus::{Bus, Delivery, Error, Origin};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    QueuedJob, Shift,
    backends::Backend,
    budget::{self, Budget},
    cancel::{WISHES, Wishes},
    in_flight::{Entry, InFlight},
    job::{NOTICES, Queue},
    queues::{self, follow},
    report::{Book, Others, REPORTS},
    tries::Tries,
};
use crate::{
    capabilities::Services,
    clock::now,
    config::{self, ExecutorConfig},
    observe::{executor::watch as watch_queues, trace::hex},
};
use desk::{Desk, Event};

/// Less than this between two clocks is the time that a message takes.
const ALIKE: i64 = 1_000_000_000;
/// For the first word of our own to come back.
const ECHO: Duration = Duration::from_secs(3);
/// Between tries of what failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Works the queues.
pub struct Worker {
    services: Arc<Services>,
    config: ExecutorConfig,
    backend: Backend,
    envelope: String,
    /// Host, process, and some digits that no other life of it has.
    name: String,
    host: String,
    started: u64,
    in_flight: InFlight<Arc<Delivery>>,
    tries: Tries,
    wishes: Wishes,
    budget: Budget,
    book: Book,
    others: Others,
    /// Nothing begins any more, and the backend was told so.
    draining: AtomicBool,
    /// The queues whose durables were seen, for whoever counts what waits there.
    origins: Arc<Mutex<HashMap<Queue, Arc<Origin>>>>,
}

/// A job that was delivered, and has not begun.
struct Taken {
    delivery: Arc<Delivery>,
    /// Why it can't be read, else.
    queued: Result<QueuedJob, String>,
    /// In tokens, as far as can be told before.
    cost: u64,
    bytes: usize,
    arrived: tokio::time::Instant,
    /// One copy of it at a time.
    entry: Entry<Arc<Delivery>>,
}

impl Worker {
    /// What is wrong with the backend shows here, before anything is bound.
    pub fn new(
        services: Arc<Services>,
        config: ExecutorConfig,
        envelope: String,
    ) -> anyhow::Result<Arc<Self>> {
        let backend = Backend::new(&services, &config)?;
        let started = now();
        let host = host();
        let digits = hex(&(started as u32).to_be_bytes());
        let name = format!("{host}-{}-{digits}", std::process::id());
        let budget = Budget::new(&config.shares, name.clone());
        let others = Others::new(name.clone());
        Ok(Arc::new(Self {
            services,
            config,
            backend,
            envelope,
            name,
            host,
            started,
            in_flight: InFlight::default(),
            tries: Tries::default(),
            wishes: Wishes::default(),
            budget,
            book: Book::default(),
            others,
            draining: AtomicBool::new(false),
            origins: Arc::default(),
        }))
    }

    /// Works jobs until the shift's `stop`; what is being worked then goes on in its `tasks`, until `abort` ends it.
    pub async fn run(self: Arc<Self>, shift: Shift) {
        let Shift { stop, abort, taking, tasks } = shift;
        if self.config.backend == config::Backend::Offline {
            tracing::warn!(
                "the executor is \"offline\": a rule-based stand-in answers in place of a model; set [executor] backend \
                 = \"queue\" or \"fleet\" for real inference"
            );
        }
        // Beside the tasks: it beats for them until they are through, and `abort` ends it.
        tokio::spawn(self.clone().heartbeat(abort.clone()));
        let jobs = TaskTracker::new();
        // It tells of jobs until the last has ended.
        tasks.spawn(self.clone().clerk(stop.clone(), abort.clone(), jobs.clone()));
        let heard = self.clone().hear(abort.clone());
        let mut loops = JoinSet::new();
        let origins = self.origins.clone();
        let queues = Box::new(move || {
            let origins = origins.lock().unwrap_or_else(PoisonError::into_inner);
            origins.iter().map(|(queue, origin)| (queue.clone(), origin.clone())).collect()
        });
        let (bus, metrics) = (self.services.bus.clone(), self.services.metrics.clone());
        loops.spawn(watch_queues(bus, metrics, queues, stop.clone()));
        while !stop.is_cancelled() {
            let (events, arriving) = mpsc::unbounded_channel::<Event>();
            let notices = self.clone().notices(events.clone());
            let (stop, abort, tasks) = (stop.clone(), abort.clone(), tasks.clone());
            let desk = Desk::new(self.clone(), events, jobs.clone(), tasks, stop.clone(), abort);
            let desk = tokio::spawn(desk.run(arriving, heard.clone(), taking.clone()));
            let ended = tokio::select! {
                ended = desk => ended,
                never = notices => match never {},
            };
            if let Err(error) = ended {
                taking.send_replace(false);
                tracing::error!("taking jobs failed: {error}; beginning anew");
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.draining.store(true, Ordering::Release);
        self.backend.close();
        jobs.close();
        loops.shutdown().await;
    }

    /// Tells the desk of queues.
    async fn notices(self: Arc<Self>, events: mpsc::UnboundedSender<Event>) -> Infallible {
        follow(self.services.bus.clone(), NOTICES, |notice| {
            if let Some(queue) = notice.as_ref().and_then(queues::queue) {
                drop(events.send(Event::Queue(queue)));
            }
        })
        .await
    }

    /// Follows what is said of jobs; who is given back changes to true once all has been heard that was said before.
    fn hear(self: Arc<Self>, abort: CancellationToken) -> watch::Receiver<bool> {
        let (heard, told) = watch::channel(false);
        let bus = self.services.bus.clone();
        tokio::spawn(async move {
            let (wishes, budgets) = (watch::Sender::new(false), watch::Sender::new(false));
            let all = async {
                let (mut wishes, mut budgets) = (wishes.subscribe(), budgets.subscribe());
                wishes.wait_for(|all| *all).await.map(drop).ok();
                budgets.wait_for(|all| *all).await.map(drop).ok();
                // With it comes the time that it is.
                let echo = async {
                    while self.others.ahead().is_none() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                drop(tokio::time::timeout(ECHO, echo).await);
                heard.send_replace(true);
            };
            let wished = follow(bus.clone(), WISHES, |wish| match wish {
                Some(wish) => self.wishes.heard(&wish),
                None => drop(wishes.send_replace(true)),
            });
            let used = follow(bus.clone(), budget::TOLD, |used| match used {
                Some(used) => self.budget.heard(&used, self.now()),
                None => drop(budgets.send_replace(true)),
            });
            let reports =
                follow(bus.clone(), REPORTS, |report| report.iter().for_each(|r| self.others.heard(r)));
            tokio::select! {
                () = abort.cancelled() => {}
                _ = async { tokio::join!(all, wished, used, reports) } => {}
            }
        });
        told
    }

    /// By the clock of the bus, as far as it is known: nanoseconds since the epoch. The times of jobs are counted by it.
    fn now(&self) -> u64 {
        let ahead = self.others.ahead().filter(|ahead| ahead.abs() >= ALIKE);
        now().saturating_add_signed(ahead.unwrap_or_default())
    }

    /// Tells the bus of all that is in hand, in time.
    async fn heartbeat(self: Arc<Self>, abort: CancellationToken) {
        let mut beat = tokio::time::interval(self.config.lease / 3);
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
}

/// Makes sure that the queues have their durables, so that a misconfigured bus shows at start.
pub async fn prepare(bus: &Arc<dyn Bus>, config: &ExecutorConfig) -> Result<(), Error> {
    for notice in queues::all(bus, NOTICES).await? {
        if let Some(queue) = queues::queue(&notice) {
            queues::durable(bus, &queue, config.lease).await?;
        }
    }
    Ok(())
}

/// The name of this host, as far as it can be part of a subject.
fn host() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let name: String = name.trim().chars().take(63).map(plain).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
